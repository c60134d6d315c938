"""Migrations: numbered, forward-only `.sql` files, applied once each under a lock."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import LiteralString, cast

import psycopg
from psycopg import sql

from workledger.errors import SchemaError
from workledger.postgres.connection import Connection, check_schema_name, translate_errors

__all__ = ["Migration", "applied", "available", "check_current", "migrate", "pending", "script"]

_HISTORY: LiteralString = """
CREATE TABLE IF NOT EXISTS migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number, its name, its text and the SHA-256 of the text."""

    version: int
    name: str
    text: LiteralString
    checksum: str


def available() -> tuple[Migration, ...]:
    """Every migration this version of Workledger brings, in order: 1, 2, 3, …."""
    folder = resources.files("workledger.postgres").joinpath("migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return tuple(_read(name, folder.joinpath(name).read_text("utf-8")) for name in names)


def _read(name: str, text: str) -> Migration:
    number, _, title = name.removesuffix(".sql").partition("_")
    checksum = hashlib.sha256(text.encode()).hexdigest()
    return Migration(version=int(number), name=title, text=cast("LiteralString", text), checksum=checksum)


def applied(connection: Connection) -> dict[int, str]:
    """The checksum of every migration the schema has; empty when the schema is not there."""
    with translate_errors():
        if connection.execute("SELECT to_regclass('migrations')").fetchone() == (None,):
            return {}
        return dict(connection.execute("SELECT version, checksum FROM migrations ORDER BY version").fetchall())


def pending(connection: Connection) -> tuple[Migration, ...]:
    """The migrations the schema lacks; raises `SchemaError` when an applied one was edited or is unknown here."""
    have = applied(connection)
    known = {migration.version: migration for migration in available()}
    for version, checksum in have.items():
        if version not in known:
            raise SchemaError(
                f"the schema has migration {version}, which this version of Workledger does not know; "
                "upgrade Workledger to the version that made it"
            )
        if known[version].checksum != checksum:
            raise SchemaError(
                f"migration {version:04d}_{known[version].name} was edited after it was applied; "
                "restore the file and put the change into a new migration"
            )
    return tuple(migration for migration in known.values() if migration.version not in have)


def migrate(
    connection: Connection, *, schema: str, on_applied: Callable[[Migration], None] | None = None
) -> tuple[Migration, ...]:
    """Bring the schema up to date; safe when several processes start at once. Returns what was applied.

    One transaction, and its lock ends with it: nobody sees a schema that is half made, and behind a transaction
    pooler no lock stays on a connection that others get next. What was applied before a migration that fails stays.
    """
    check_schema_name(schema)
    lock_key = f"workledger.migrate.{schema}"
    done: list[Migration] = []
    with translate_errors():
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (lock_key,))
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
            connection.execute(_HISTORY)
            failure = _apply_pending(connection, done)
        for migration in done:
            if on_applied is not None:
                on_applied(migration)
        if failure is not None:
            raise failure
    return tuple(done)


def _apply_pending(connection: Connection, done: list[Migration]) -> psycopg.Error | None:
    """Apply what is missing, adding it to `done`; stops at the first that fails and returns its error."""
    for migration in pending(connection):
        try:
            with connection.transaction():
                connection.execute(migration.text, prepare=False)
                connection.execute(
                    "INSERT INTO migrations (version, name, checksum) VALUES (%s, %s, %s)",
                    (migration.version, migration.name, migration.checksum),
                )
        except psycopg.Error as error:
            if connection.closed:
                raise
            return error
        done.append(migration)
    return None


def check_current(connection: Connection) -> None:
    """Raise `SchemaError` unless every migration is applied."""
    if missing := pending(connection):
        names = ", ".join(f"{migration.version:04d}_{migration.name}" for migration in missing)
        raise SchemaError(f"the schema lacks {names}; run `workledger migrate`")


def script(*, schema: str, after: int = 0) -> str:
    """Everything `migrate` would run, as one script for a database administrator to read and run with psql."""
    check_schema_name(schema)
    parts = [
        "\\set ON_ERROR_STOP on",
        "BEGIN;",
        f"SELECT pg_advisory_xact_lock(hashtextextended('workledger.migrate.{schema}', 0));",
        f"CREATE SCHEMA IF NOT EXISTS {schema};",
        f"SET LOCAL search_path = {schema};",
        f"{_HISTORY.strip()};",
    ]
    for migration in available():
        if migration.version > after:
            parts += [
                f"\n-- {migration.version:04d}_{migration.name}",
                migration.text.strip(),
                _history_row(migration),
            ]
    return "\n".join([*parts, "COMMIT;", ""])


def _history_row(migration: Migration) -> str:
    values = f"({migration.version}, '{migration.name}', '{migration.checksum}')"
    return f"INSERT INTO migrations (version, name, checksum) VALUES {values};"  # noqa: S608  our own file names
