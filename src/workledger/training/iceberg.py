"""Tables of Iceberg. How far one has come is said in the commit that adds the rows.

It stands in the properties of the snapshot, and in one of the table, which outlives the snapshot.

The catalogue is PostgreSQL's, in the database of the log, or one that is asked over HTTP.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import SplitResult, unquote

import pyarrow as pa
from pyarrow.fs import FileSelector

from workledger.errors import ConfigurationError, DatabaseUnavailable, MissingExtra, WorkledgerError
from workledger.training.arrow import Batch
from workledger.training.clouds import cloud_error, wrong
from workledger.training.lake import LakeStore, Maintained, lake_schema, outrun
from workledger.training.records import RecordType

try:
    from pyiceberg.catalog import Catalog, load_catalog
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.exceptions import (
        CommitFailedException,
        CommitStateUnknownException,
        ForbiddenError,
        NamespaceAlreadyExistsError,
        NoSuchTableError,
        OAuthError,
        RESTError,
        TableAlreadyExistsError,
        UnauthorizedError,
    )
    from pyiceberg.io.pyarrow import PyArrowFileIO
    from pyiceberg.partitioning import PartitionField, PartitionSpec
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table
    from pyiceberg.transforms import IdentityTransform
    from pyiceberg.types import (
        DateType,
        DoubleType,
        LongType,
        NestedField,
        PrimitiveType,
        StringType,
        TimestamptzType,
    )
    from pyiceberg.utils.config import Config
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError
except ImportError as error:
    raise MissingExtra("Iceberg needs pyiceberg: pip install 'workledger[iceberg]'", extra="iceberg") from error

__all__ = ["open_iceberg"]

_CATALOG: Final = "workledger"
_POSITION: Final = "workledger.position"
#: So much is in memory at once while a commit is written.
_PART_BYTES: Final = 8 * 1024 * 1024
#: So much, compressed, is read at once and becomes one file, when there are so many files of it.
_JOINED_BYTES: Final = 8 * 1024 * 1024
_MANY_FILES: Final = 8
#: Whoever writes may have files for this long that no commit names yet.
_UNCOMMITTED: Final = timedelta(days=1)
_TYPES: Final[dict[Any, PrimitiveType]] = {
    pa.string(): StringType(),
    pa.int64(): LongType(),
    pa.float64(): DoubleType(),
    pa.timestamp("us", tz="UTC"): TimestamptzType(),
    pa.date32(): DateType(),
}
_PROPERTIES: Final = {
    # A commit that another one outran is to be refused, not repeated: what it would add may be there by then.
    "commit.retry.num-retries": "0",
    "write.parquet.compression-codec": "zstd",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "100",
}


def open_iceberg(parts: SplitResult, *, options: dict[str, str], database_url: Callable[[], str]) -> LakeStore:
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
        self._known = 0

    def position(self) -> int:
        """Give the position in the table's properties."""
        self._table = self._loaded()
        self._known = 0 if self._table is None else _position(self._table)
        return self._known

    def append(self, batches: Iterable[Batch], *, last: int) -> None:
        """Add rows and the position in one transaction."""
        table = self._table = self._loaded() or self._created()
        if _position(table) != self._known:
            raise outrun(self._name)
        self._grow(table)
        said = {_POSITION: str(last)}
        with self._explained(), table.transaction() as transaction:
            transaction.set_properties(said)
            for part in _parts(batches, self._record_type):
                transaction.append(part, snapshot_properties=said)
                pa.default_memory_pool().release_unused()
        self._known = last

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
        self._grow(table)
        rows = pa.Table.from_batches(batches, schema=lake_schema(self._record_type))
        with self._explained(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Delete operation did not match any records")
            table.overwrite(rows, overwrite_filter=_between(first, last))
        self._table = self._loaded()

    def maintain(self, *, keep: timedelta) -> Maintained:
        """Join small files of a day, expire old snapshots, remove the files that none of the others has."""
        table = self._loaded()
        if table is None:
            return Maintained()
        joined = made = 0
        with self._explained():
            for run in _crowded(table):
                self._join(table, run)
                joined, made = joined + run.files, made + 1
                table.refresh()
            now = datetime.now(UTC)
            snapshots = len(table.snapshots())
            if any(one.timestamp_ms < (now - keep).timestamp() * 1000 for one in table.snapshots()):
                table.maintenance.expire_snapshots().older_than(now - keep).commit()
            table.refresh()
            removed = _remove_unnamed(table, self._location, before=now - max(keep, _UNCOMMITTED))
            return Maintained(joined=joined, made=made, expired=snapshots - len(table.snapshots()), removed=removed)

    def _join(self, table: Table, run: _Run) -> None:
        """Put rows that are in many files into one, in one commit."""
        rows = table.scan(row_filter=run.filter).to_arrow().sort_by("position")
        with table.transaction() as transaction:
            transaction.delete(run.filter)
            transaction.append(rows)

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
            return table

    def _grow(self, table: Table) -> None:
        """Give the table the columns that its record type has got since."""
        wanted = lake_schema(self._record_type)
        if set(wanted.names) - {field.name for field in table.schema().fields}:
            with self._explained(), table.update_schema() as update:
                update.union_by_name(wanted)

    def _created(self) -> Table:
        with self._explained():
            catalog = self._connected.catalog()
            with suppress(NamespaceAlreadyExistsError):
                catalog.create_namespace(self._id[:1])
            with suppress(TableAlreadyExistsError):
                schema = _iceberg_schema(self._record_type)
                return catalog.create_table(
                    self._id, schema, self._location, _by_day(schema), properties=dict(_PROPERTIES)
                )
            return catalog.load_table(self._id)

    @contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except WorkledgerError:
            raise
        except CommitFailedException as error:
            raise outrun(self._name) from error
        except (UnauthorizedError, ForbiddenError, OAuthError) as error:
            raise wrong(
                f"{self._name}: the catalogue refuses the credentials; set PYICEBERG_CATALOG__WORKLEDGER__CREDENTIAL "
                "or PYICEBERG_CATALOG__WORKLEDGER__TOKEN",
                name=self._name,
            ) from error
        except SQLAlchemyError as error:
            why = str(error).partition("\n")[0]
            raise DatabaseUnavailable(f"the catalogue of {self._name} cannot be reached: {why}") from error
        except (CommitStateUnknownException, RESTError, OSError, ValueError) as error:
            raise cloud_error(error, name=self._name) from error


def _iceberg_schema(record_type: RecordType) -> Schema:
    fields = enumerate(lake_schema(record_type), start=1)
    return Schema(*(NestedField(n, one.name, _TYPES[one.type], required=not one.nullable) for n, one in fields))


def _by_day(schema: Schema) -> PartitionSpec:
    return PartitionSpec(PartitionField(schema.find_field("day").field_id, 1000, IdentityTransform(), "day"))


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


@dataclass(frozen=True, slots=True)
class _Run:
    """Adjacent files of a day, which have these positions."""

    day: Any
    first: int
    last: int
    files: int

    @property
    def filter(self) -> str:
        return f"day = '{self.day}' and {_between(self.first, self.last)}"


def _crowded(table: Table) -> list[_Run]:
    """Give the runs of files that are too many for what is in them. Joining one always leaves fewer."""
    days: dict[Any, list[tuple[int, int, int]]] = {}
    for file in table.inspect.files().to_pylist():
        bounds = (file["readable_metrics"] or {}).get("position") or {}
        if bounds.get("lower_bound") is not None:
            found = (bounds["lower_bound"], bounds["upper_bound"], file["file_size_in_bytes"])
            days.setdefault(file["partition"]["day"], []).append(found)
    return [
        _Run(day, run[0][0], max(last for _, last, _ in run), len(run))
        for day, files in sorted(days.items())
        for run in _runs(sorted(files))
        if len(run) >= _MANY_FILES
    ]


def _runs(files: Iterable[tuple[int, int, int]]) -> Iterator[list[tuple[int, int, int]]]:
    """Cut files into runs of bounded size."""
    run: list[tuple[int, int, int]] = []
    size_bytes = 0
    for file in files:
        if run and size_bytes + file[2] > _JOINED_BYTES:
            yield run
            run, size_bytes = [], 0
        run.append(file)
        size_bytes += file[2]
    if run:
        yield run


def _remove_unnamed(table: Table, location: str, *, before: datetime) -> int:
    """Remove the files of a table that no snapshot names and that are old enough to be nobody's work."""
    io = table.io
    if not isinstance(io, PyArrowFileIO):
        return 0
    scheme, netloc, path = PyArrowFileIO.parse_location(location, io.properties)
    files = io.fs_by_scheme(scheme, netloc)
    named = {PyArrowFileIO.parse_location(name, io.properties)[2] for name in _named(table)}
    unnamed = [
        found.path
        for found in files.get_file_info(FileSelector(path, allow_not_found=True, recursive=True))
        if found.is_file and found.path not in named and found.mtime is not None and found.mtime < before
    ]
    for one in unnamed:
        files.delete_file(one)
    return len(unnamed)


def _named(table: Table) -> Iterator[str]:
    """Give every file that the table as it is now, or one of its snapshots, has."""
    yield table.metadata_location
    yield from (entry.metadata_file for entry in table.metadata.metadata_log)
    yield from (file.statistics_path for file in (*table.metadata.statistics, *table.metadata.partition_statistics))
    yield from (snapshot.manifest_list for snapshot in table.snapshots())
    yield from table.inspect.all_manifests()["path"].to_pylist()
    yield from table.inspect.all_files()["file_path"].to_pylist()


def _catalog(root: str, options: dict[str, str], database_url: Callable[[], str]) -> Catalog:
    """Open the catalogue; a REST one gets its credentials from the variables that pyiceberg reads."""
    storage = {
        "s3.endpoint": options.get("endpoint") or os.environ.get("AWS_ENDPOINT_URL"),
        "s3.region": options.get("region") or os.environ.get("AWS_REGION"),
        "s3.access-key-id": os.environ.get("AWS_ACCESS_KEY_ID"),
        "s3.secret-access-key": os.environ.get("AWS_SECRET_ACCESS_KEY"),
        "s3.session-token": os.environ.get("AWS_SESSION_TOKEN"),
    }
    properties = {name: value for name, value in storage.items() if value} | {"warehouse": root}
    if catalog_url := options.get("catalog"):
        # Asked for here, because the library looks at the environment only once, when it is imported.
        given = cast("dict[str, str]", Config().get_catalog_config(_CATALOG) or {})
        tokens = {"oauth2-server-uri": f"{catalog_url.rstrip('/')}/v1/oauth/tokens"}
        return load_catalog(_CATALOG, **{**tokens, **given, "type": "rest", "uri": catalog_url, **properties})
    return _sql_catalog({"uri": _sqlalchemy_url(database_url()), **properties})


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
