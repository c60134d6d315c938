"""Loading files of the archive into temporary tables, and showing them as one with what the database has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, Final

import psycopg
from psycopg import sql

from workledger.errors import StoreCorrupted
from workledger.model.archived import ArchiveFile
from workledger.operational.archiving import columns_of
from workledger.postgres.archive_access import access_for
from workledger.postgres.connection import Connection, translate_errors
from workledger.training.arrow_csv import write_csv
from workledger.training.event_archive import EventFile
from workledger.training.table_archive import PayloadFile, TableFile

__all__ = ["TABLES", "Loader", "unload"]

#: The tables that archived rows are shown in.
TABLES: Final = ("events", "payloads", "workflows", "task_executions")
_KEYS: Final = {
    "events": "event_id",
    "payloads": "digest",
    "workflows": "workflow_id",
    "task_executions": "execution_id",
}
_INDEXES: Final = (
    ("events", ("entity_type", "entity_id")),
    ("events", ("workflow_id",)),
    ("events", ("event_type",)),
)
_MAKE: Final = sql.SQL("CREATE TEMPORARY TABLE {past} (LIKE {live} INCLUDING DEFAULTS INCLUDING GENERATED)")
_COPY: Final = sql.SQL("COPY {past} ({columns}) FROM STDIN (FORMAT csv)")
_INDEX: Final = sql.SQL("CREATE INDEX ON {past} ({columns})")
_ONCE: Final = sql.SQL("DELETE FROM {past} p USING {live} t WHERE t.{key} = p.{key}")
_SHOW: Final = sql.SQL(
    "CREATE TEMPORARY VIEW {view} AS SELECT {columns} FROM {live} UNION ALL SELECT {columns} FROM {past}"
)
#: Files have it; the database knows it without.
_POSITION: Final = sql.SQL("ALTER TABLE {past} ADD COLUMN position bigint")
_RAW: Final = sql.SQL("CREATE TEMPORARY TABLE {raw} (LIKE {live})")
_AS_TEXT: Final = sql.SQL("ALTER TABLE {raw} ALTER COLUMN {name} TYPE text")
_PLAIN, _ARRAY = sql.SQL("r.{}"), sql.SQL("ARRAY(SELECT json_array_elements_text(r.{}::json))")
_TAKE: Final = sql.SQL(
    "INSERT INTO {past} ({columns}) SELECT {values} FROM {raw} r"
    " JOIN archived_workflows a USING (workflow_id) WHERE a.archive = {archive}"
)


class Loader:
    """Loads files; notes those that cannot be read."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        ((self._schema,),) = connection.execute("SELECT current_schema()").fetchall()
        self.events = 0
        self.faults: list[tuple[ArchiveFile, StoreCorrupted]] = []

    def load(self, files: Iterable[ArchiveFile]) -> None:
        """Load files and show their rows."""
        with translate_errors():
            for table in TABLES:
                self._execute(_MAKE, table)
            self._execute(_POSITION, "events")
            for file in files:
                try:
                    with self._connection.transaction():
                        self._load_file(file)
                except StoreCorrupted as error:
                    self.faults.append((file, error))
            for table, columns in (*((table, (key,)) for table, key in _KEYS.items()), *_INDEXES):
                self._execute(_INDEX, table, columns=columns)
            self._execute(_ONCE, "payloads")
            for table in TABLES:
                self._connection.execute(sql.SQL("ANALYZE {}").format(_past(table)))
                self._execute(
                    _SHOW, table, columns=[name for name, _ in columns_of(self._connection, table, generated=True)]
                )
            self._connection.execute("DISCARD PLANS")

    def _load_file(self, file: ArchiveFile) -> None:
        match file.kind:
            case "events":
                content = EventFile(self._open(file), location=file.url)
                self._copy_csv(_past("events"), content.names, map(write_csv, content.tables()))
                self.events += content.rows
            case "payloads":
                with self._open(file) as opened:
                    self._copy_payloads(PayloadFile(opened, location=file.url))
            case _:
                with self._open(file) as opened:
                    self._copy_state(file, TableFile(opened, location=file.url))

    def _open(self, file: ArchiveFile) -> BinaryIO:
        return access_for(self._connection, file).open(file)

    def _copy_payloads(self, content: PayloadFile) -> None:
        columns = ("digest", "codec", "size_bytes", "body")
        statement = sql.SQL("COPY {past} ({columns}) FROM STDIN").format(
            past=_past("payloads"), columns=_names(columns)
        )
        with psycopg.Cursor(self._connection) as cursor, cursor.copy(statement) as copy:
            for blob in content.blobs():
                copy.write_row((blob.digest, blob.codec, blob.size_bytes, blob.body))

    def _copy_state(self, file: ArchiveFile, content: TableFile) -> None:
        """Copy the rows of those workflows that left for this file; of others, somebody who was killed wrote them."""
        arrays = [name for name, kind in columns_of(self._connection, file.kind) if kind.endswith("[]")]
        raw = sql.Identifier("pg_temp", f"raw_{file.kind}")
        with psycopg.Cursor(self._connection) as cursor:
            cursor.execute(_RAW.format(raw=raw, live=sql.Identifier(self._schema, file.kind)))
            for name in arrays:
                cursor.execute(_AS_TEXT.format(raw=raw, name=sql.Identifier(name)))
            self._copy_csv(raw, content.names, map(write_csv, content.tables()))
            values = [(_ARRAY if name in arrays else _PLAIN).format(sql.Identifier(name)) for name in content.names]
            cursor.execute(
                _TAKE.format(
                    past=_past(file.kind),
                    columns=_names(content.names),
                    values=sql.SQL(", ").join(values),
                    raw=raw,
                    archive=sql.Literal(file.source),
                )
            )
            cursor.execute(sql.SQL("DROP TABLE {}").format(raw))

    def _copy_csv(self, into: sql.Composable, columns: Sequence[str], chunks: Iterator[bytes]) -> None:
        statement = _COPY.format(past=into, columns=_names(columns))
        with psycopg.Cursor(self._connection) as cursor, cursor.copy(statement) as copy:
            for chunk in chunks:
                copy.write(chunk)

    def _execute(self, statement: sql.SQL, table: str, *, columns: Sequence[str] = ()) -> None:
        self._connection.execute(
            statement.format(
                past=_past(table),
                live=sql.Identifier(self._schema, table),
                view=sql.Identifier("pg_temp", table),
                key=sql.Identifier(_KEYS[table]),
                columns=_names(columns),
            ),
            prepare=False,
        )


def unload(connection: Connection) -> None:
    """Remove what was loaded."""
    with translate_errors():
        for table in TABLES:
            connection.execute(
                sql.SQL("DROP VIEW IF EXISTS {}").format(sql.Identifier("pg_temp", table)), prepare=False
            )
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(_past(table)), prepare=False)
        connection.execute("DISCARD PLANS")


def _past(table: str) -> sql.Identifier:
    return sql.Identifier("pg_temp", f"past_{table}")


def _names(columns: Sequence[str]) -> sql.Composable:
    return sql.SQL(", ").join(map(sql.Identifier, columns))
