"""Tables of Iceberg. How far one has come is said in the commit that adds the rows.

It stands in the properties of the snapshot, and in one of the table, which outlives the snapshot.

The catalogue is PostgreSQL's, in the database of the log, or one that is asked over HTTP.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, unquote

import pyarrow as pa

from workledger.errors import ConfigurationError, DatabaseUnavailable, MissingExtra, WorkledgerError
from workledger.training.arrow import Batch
from workledger.training.clouds import cloud_error
from workledger.training.lake import LakeStore, Maintained, lake_schema, outrun
from workledger.training.records import RecordType

try:
    from pyiceberg.catalog import Catalog, load_catalog
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.exceptions import (
        CommitFailedException,
        CommitStateUnknownException,
        NamespaceAlreadyExistsError,
        NoSuchTableError,
        RESTError,
        TableAlreadyExistsError,
    )
    from pyiceberg.table import Table
    from pyiceberg.transforms import IdentityTransform
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError
except ImportError as error:
    raise MissingExtra("Iceberg needs pyiceberg: pip install 'workledger[iceberg]'", extra="iceberg") from error

__all__ = ["open_iceberg"]

_CATALOG: Final = "workledger"
_POSITION: Final = "workledger.position"
#: So much is in memory at once while a commit is written.
_PART_BYTES: Final = 32 * 1024 * 1024
_SMALL_BYTES: Final = 32 * 1024 * 1024
_MANY_FILES: Final = 8
_PROPERTIES: Final = {
    # A commit that another one outran is to be refused, not repeated: what it would add may be there by then.
    "commit.retry.num-retries": "0",
    "write.parquet.compression-codec": "zstd",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "100",
}


def open_iceberg(parts: SplitResult, *, options: dict[str, str], database_url: str) -> LakeStore:
    """Give the store at `file:FOLDER` or in a bucket.

    `options` are `namespace`, and maybe `catalog` (the URL of a REST catalogue), `endpoint` and `region`.
    """
    scheme = parts.scheme.removeprefix("iceberg+")
    if scheme == "file":
        root = f"file://{Path(unquote(parts.path)).expanduser().absolute()}"
    else:
        root = f"{scheme}://{parts.netloc}/{unquote(parts.path).strip('/')}".rstrip("/")
    name = f"iceberg+{root}".replace("+file://", "+file:")
    connected = _Connected(partial(_catalog, root, options, database_url))
    namespace = options["namespace"]
    return LakeStore(name, tables=lambda kind: _IcebergTable(connected, namespace, f"{root}/{kind}", kind, name))


class _Connected:
    """The catalogue, opened when it is first asked for."""

    def __init__(self, connect: Callable[[], Catalog]) -> None:
        self._connect = connect
        self._catalog: Catalog | None = None

    def catalog(self) -> Catalog:
        if (known := self._catalog) is None:
            known = self._catalog = self._connect()
        return known


class _IcebergTable:
    """The table of one record type."""

    def __init__(self, connected: _Connected, namespace: str, location: str, kind: RecordType, name: str) -> None:
        self._connected = connected
        self._id = (namespace, str(kind))
        self._location = location
        self._record_type = kind
        self._name = name
        self._table: Table | None = None

    def position(self) -> int:
        """Give the position in the table's properties."""
        self._table = self._loaded()
        return 0 if self._table is None else _position(self._table)

    def append(self, batches: Iterable[Batch], *, last: int) -> None:
        """Add rows and the position in one transaction."""
        table = self._table = self._table or self._created()
        if _position(table) >= last:
            raise outrun(self._name)
        said = {_POSITION: str(last)}
        with self._explained(), table.transaction() as transaction:
            transaction.set_properties(said)
            for part in _parts(batches, self._record_type):
                transaction.append(part, snapshot_properties=said)

    def rows(self, first: int, last: int) -> Any:
        """Give rows by position."""
        table = self._table or self._loaded()
        if table is None:
            return lake_schema(self._record_type).empty_table()
        with self._explained():
            return table.scan(row_filter=_between(first, last)).to_arrow().sort_by("position")

    def replace(self, batches: Iterable[Batch], *, first: int, last: int) -> None:
        """Overwrite what the positions select."""
        table = self._loaded() or self._created()
        rows = pa.Table.from_batches(batches, schema=lake_schema(self._record_type))
        with self._explained(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Delete operation did not match any records")
            table.overwrite(rows, overwrite_filter=_between(first, last))
        self._table = self._loaded()

    def maintain(self, *, keep: timedelta) -> Maintained:
        """Join the small files of each day; expire old snapshots."""
        table = self._loaded()
        if table is None:
            return Maintained()
        joined = made = 0
        with self._explained():
            for day, files in _crowded(table):
                joined, made = joined + files, made + self._rewrite(table, day)
                table.refresh()
            before = len(table.snapshots())
            if before:
                table.maintenance.expire_snapshots().older_than(datetime.now(UTC) - keep).commit()
            return Maintained(joined=joined, made=made, expired=before - len(table.refresh().snapshots()))

    def _rewrite(self, table: Table, day: Any) -> int:
        """Put the rows of a day into as few files as their size asks for, in one commit."""
        made = 0
        of_day = f"day = '{day}'"
        reader = table.scan(row_filter=of_day).to_arrow_batch_reader()
        with table.transaction() as transaction:
            transaction.delete(of_day)
            for part in _parts(reader, self._record_type):
                transaction.append(part)
                made += 1
        return made

    def _loaded(self) -> Table | None:
        with self._explained():
            try:
                table = self._connected.catalog().load_table(self._id)
            except NoSuchTableError:
                return None
            if table.location() != self._location:
                raise ConfigurationError(
                    f"{'.'.join(self._id)} is in the catalogue already, at {table.location()} and not at "
                    f"{self._location}; name another namespace: ?namespace=…",
                    setting="WORKLEDGER_TRAINING_URL",
                    value=self._name,
                )
            self._grow(table)
            return table

    def _grow(self, table: Table) -> None:
        """Give the table the columns that its record type has got since."""
        wanted = lake_schema(self._record_type)
        if set(wanted.names) - {field.name for field in table.schema().fields}:
            with table.update_schema() as update:
                update.union_by_name(wanted)

    def _created(self) -> Table:
        with self._explained():
            catalog = self._connected.catalog()
            with suppress(NamespaceAlreadyExistsError):
                catalog.create_namespace(self._id[:1])
            try:
                with (
                    catalog.create_table_transaction(
                        self._id, lake_schema(self._record_type), location=self._location, properties=dict(_PROPERTIES)
                    ) as transaction,
                    transaction.update_spec() as spec,
                ):
                    spec.add_field("day", IdentityTransform(), "day")
            except (TableAlreadyExistsError, CommitFailedException):
                pass
            return catalog.load_table(self._id)

    @contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except WorkledgerError:
            raise
        except CommitFailedException as error:
            raise outrun(self._name) from error
        except SQLAlchemyError as error:
            why = str(error).partition("\n")[0]
            raise DatabaseUnavailable(f"the catalogue of {self._name} cannot be reached: {why}") from error
        except (CommitStateUnknownException, RESTError, OSError, ValueError) as error:
            raise cloud_error(error, name=self._name) from error


def _position(table: Table) -> int:
    return int(table.properties.get(_POSITION, "0"))


def _between(first: int, last: int) -> str:
    return f"position >= {first} and position <= {last}"


def _parts(batches: Iterable[Batch], record_type: RecordType) -> Iterator[Any]:
    """Give rows as tables of bounded size."""
    schema = lake_schema(record_type)
    waiting: list[Batch] = []
    size_bytes = 0
    for batch in batches:
        waiting.append(batch)
        size_bytes += batch.nbytes
        if size_bytes >= _PART_BYTES:
            yield pa.Table.from_batches(waiting).cast(schema)
            waiting, size_bytes = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting).cast(schema)


def _crowded(table: Table) -> list[tuple[Any, int]]:
    """Give the days that have many small files, and how many."""
    found: dict[Any, int] = {}
    for file in table.inspect.files().to_pylist():
        if file["file_size_in_bytes"] < _SMALL_BYTES:
            day = file["partition"]["day"]
            found[day] = found.get(day, 0) + 1
    return sorted((day, files) for day, files in found.items() if day is not None and files >= _MANY_FILES)


def _catalog(root: str, options: dict[str, str], database_url: str) -> Catalog:
    storage = {
        "s3.endpoint": options.get("endpoint") or os.environ.get("AWS_ENDPOINT_URL"),
        "s3.region": options.get("region") or os.environ.get("AWS_REGION"),
        "s3.access-key-id": os.environ.get("AWS_ACCESS_KEY_ID"),
        "s3.secret-access-key": os.environ.get("AWS_SECRET_ACCESS_KEY"),
        "s3.session-token": os.environ.get("AWS_SESSION_TOKEN"),
    }
    properties = {name: value for name, value in storage.items() if value} | {"warehouse": root}
    if catalog_url := options.get("catalog"):
        return load_catalog(_CATALOG, **{"type": "rest", "uri": catalog_url, **properties})
    return _sql_catalog({"uri": _sqlalchemy_url(database_url), **properties})


def _sql_catalog(properties: dict[str, str]) -> Catalog:
    """Open the catalogue in PostgreSQL, whose tables whoever comes first makes."""
    catalog = SqlCatalog(_CATALOG, **properties, init_catalog_tables="false")
    # A connection for each question, closed afterwards: the questions are few, and a server may go away between.
    catalog.close()
    catalog.engine = create_engine(properties["uri"], poolclass=NullPool)
    try:
        catalog.create_tables()
    except (IntegrityError, ProgrammingError):
        catalog.create_tables()  # two made them at once, and now they are there
    return catalog


def _sqlalchemy_url(database_url: str) -> str:
    scheme, found, rest = database_url.partition("://")
    if not found or scheme not in {"postgresql", "postgres"}:
        raise ConfigurationError(
            "Iceberg keeps its catalogue in PostgreSQL, and needs WORKLEDGER_DATABASE_URL as postgresql://…; or name "
            "a REST catalogue: iceberg+s3://…?catalog=https://…",
            setting="WORKLEDGER_DATABASE_URL",
            value=database_url,
        )
    return f"postgresql+psycopg://{rest}"
