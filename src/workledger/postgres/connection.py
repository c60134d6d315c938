"""Connections, and the one place where the driver's errors become ours."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, LiteralString, cast

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row
from psycopg.types.json import set_json_loads

from workledger.errors import (
    ConfigurationError,
    Conflict,
    DatabaseUnavailable,
    InvalidInput,
    NotFound,
    SchemaError,
    WorkledgerError,
)
from workledger.model.jsonvalue import decode

__all__ = [
    "Connection",
    "as_connection",
    "check_schema_name",
    "connect",
    "in_schema",
    "plan_for_reading",
    "translate_errors",
]

Connection = psycopg.Connection[tuple[Any, ...]]

# The recording statements join a handful of rows to tables by primary key. PostgreSQL guesses a hundred rows for
# a JSON recordset and then prefers to read a small table whole; pinned to indexes and generic plans, a
# statement costs the same at a thousand rows and at a hundred million.
_RECORDING: LiteralString = (
    "SELECT set_config(name, value, false) FROM (VALUES ('enable_seqscan', 'off'), ('enable_hashjoin', 'off'),"
    " ('enable_mergejoin', 'off'), ('plan_cache_mode', 'force_generic_plan'), ('jit', 'off')) AS s (name, value)"
)

# The reading statements have filters that may be left out (`$1 IS NULL OR name = $1`): only a plan made for the
# values at hand uses the index that fits them.
_READING: LiteralString = "SET plan_cache_mode = force_custom_plan"
_NOT_RECORDING: LiteralString = "RESET enable_seqscan; RESET enable_hashjoin; RESET enable_mergejoin; RESET jit"


def check_schema_name(schema: str) -> str:
    """Return the name of the project's schema, or raise `ConfigurationError`."""
    if not schema.isidentifier() or not schema.isascii() or len(schema) > 63:  # noqa: PLR2004  PostgreSQL's limit
        raise ConfigurationError(
            f"project {schema!r} cannot be a schema name; use 1 to 63 letters, digits and underscores",
            setting="WORKLEDGER_PROJECT",
            value=schema,
        )
    return schema


def connect(
    url: str,
    *,
    schema: str = "workledger",
    application_name: str = "workledger",
    recording: bool = False,
    prepared: bool = True,
    timeout_s: float = 10.0,
) -> Connection:
    """Open an autocommit connection whose `search_path` is the project's schema.

    `recording=True` pins the plans of the recording statements; `prepared=False` is for PgBouncer in transaction mode,
    where a session has no settings of its own: the role must bring the `search_path`. Raises `DatabaseUnavailable` when
    the server cannot be reached.
    """
    check_schema_name(schema)
    with translate_errors():
        connection = psycopg.connect(
            url,
            autocommit=True,
            prepare_threshold=0 if prepared else None,
            row_factory=tuple_row,
            connect_timeout=max(int(timeout_s), 2),
            application_name=application_name,
            client_encoding="UTF8",
        )
        _check_encoding(connection)
        if prepared:
            connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(schema)))
            connection.execute("SET timezone = 'UTC'")
            connection.execute(_RECORDING if recording else _READING)
        else:
            _check_pooled(connection, schema)
    set_json_loads(decode, connection)
    return connection


def _check_pooled(connection: Connection, schema: str) -> None:
    """Behind a pooler a SET would stay with whichever server connection it met, for whoever comes next."""
    row = connection.execute("SELECT current_setting('search_path'), current_user, current_database()").fetchone()
    path, role, name = row or ("", "", "")
    if path.split(",")[0].strip(' "') != schema:
        connection.close()
        raise ConfigurationError(
            f"behind a pooler the role {role!r} must find the project by itself, and its search_path is {path!r}. "
            f"As its owner run: ALTER ROLE {role} IN DATABASE {name} SET search_path = {schema}",
            setting="WORKLEDGER_POOLED",
            value=path,
        )


def plan_for_reading(connection: Connection) -> None:
    """Have a connection that was opened for recording plan as suits reading from now on."""
    if connection.prepare_threshold is None:
        return
    with translate_errors():
        connection.execute(_NOT_RECORDING, prepare=False)
        connection.execute(_READING)


def _check_encoding(connection: Connection) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        name = connection.info.dbname
        connection.close()
        raise ConfigurationError(
            f"database {name!r} has the encoding {encoding}, which cannot hold every text; "
            "make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
            setting="WORKLEDGER_DATABASE_URL",
            value=encoding,
        )


def as_connection(connection: Any) -> Connection:
    """The psycopg connection of a psycopg or SQLAlchemy connection or of a SQLAlchemy session."""
    if isinstance(connection, psycopg.Connection):
        return cast("Connection", connection)
    if hasattr(connection, "get_bind") and callable(getattr(connection, "connection", None)):  # a Session
        connection = connection.connection()
    driver = getattr(getattr(connection, "connection", None), "driver_connection", None)
    if isinstance(driver, psycopg.Connection):
        return cast("Connection", driver)
    raise InvalidInput(
        f"cannot join a {type(connection).__module__}.{type(connection).__qualname__}; pass a psycopg 3 connection, "
        "or a SQLAlchemy connection or session over postgresql+psycopg",
        field="connection",
        value=type(connection).__name__,
        limit="psycopg",
    )


@contextmanager
def in_schema(connection: Connection, schema: str) -> Generator[None]:
    """Run a block of the caller's transaction with our `search_path`, and put theirs back."""
    (before,) = connection.cursor(row_factory=tuple_row).execute(
        "SELECT current_setting('search_path')"
    ).fetchone() or ("",)
    connection.execute("SELECT set_config('search_path', %s, true)", (schema,))
    yield
    connection.execute("SELECT set_config('search_path', %s, true)", (before,))


@contextmanager
def translate_errors() -> Generator[None]:
    """Turn the driver's errors into ours; they never leave this folder as they are."""
    try:
        yield
    except psycopg.Error as error:
        raise translated(error) from error


def translated(error: psycopg.Error) -> WorkledgerError:  # noqa: C901  a table, one line for each kind
    """Our error for one of the driver's."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    match error:
        case psycopg.errors.UndefinedTable() | psycopg.errors.InvalidSchemaName() | psycopg.errors.UndefinedFunction():
            return SchemaError(f"{text}. Run `workledger migrate`, which creates or completes the schema")
        case psycopg.errors.UniqueViolation():
            return Conflict(f"already recorded: {text}", entity_id=_diagnostic(error))
        case psycopg.errors.ForeignKeyViolation():
            return NotFound(f"refers to what does not exist: {_diagnostic(error)}", entity_type=None, entity_id=None)
        case (
            psycopg.errors.DataError() | psycopg.errors.IntegrityError() | psycopg.errors.ProgramLimitExceeded()
        ):  # the last is an OperationalError to the driver, but it will never succeed
            return InvalidInput(f"PostgreSQL refused a value: {text}", field=None, value=None, limit=None)
        case psycopg.errors.RestrictViolation():
            return WorkledgerError(text)
        case psycopg.errors.InsufficientPrivilege():
            return ConfigurationError(f"{text}. Grant the role what `workledger migrate --roles` lists", setting="role")
        case psycopg.ProgrammingError() if error.sqlstate is None:  # libpq could not read the connection string
            return ConfigurationError(
                f"{text}. A database is named like postgresql://user@host:5432/name",
                setting="WORKLEDGER_DATABASE_URL",
                value=None,
            )
        case psycopg.errors.DeadlockDetected() | psycopg.errors.SerializationFailure():
            return DatabaseUnavailable(f"PostgreSQL had this transaction give way to another one: {text}. Try again")
        case psycopg.errors.LockNotAvailable():
            return DatabaseUnavailable(
                f"PostgreSQL gave no lock in time: {text}. Somebody's transaction holds what this writes to"
            )
        case psycopg.errors.ReadOnlySqlTransaction():
            return DatabaseUnavailable(f"PostgreSQL takes no writes now: {text} (a standby, or a primary that was)")
        case psycopg.OperationalError() | psycopg.InterfaceError():
            return DatabaseUnavailable(
                f"PostgreSQL cannot be reached: {text}. "
                "Check WORKLEDGER_DATABASE_URL, or unset it to use the embedded server"
            )
        case _:
            return WorkledgerError(f"PostgreSQL: {text}")


def _diagnostic(error: psycopg.Error) -> str:
    return error.diag.message_detail or error.diag.message_primary or str(error)
