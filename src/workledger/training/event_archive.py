"""Archived events as Parquet: written from the columns that PostgreSQL sends, and read back in many ways.

One row an event, sorted by position, every column of `events` as it was; the payload is the text that `jsonb` prints,
byte for byte. Row groups carry statistics, so that a stretch of positions is found without reading the rest, and pages
carry checksums. DuckDB, Spark and pandas read the files as they are.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import accumulate, groupby
from typing import Any, BinaryIO, Final, TypeAlias

import msgspec
import orjson

from workledger.errors import MissingExtra, StoreCorrupted
from workledger.model.archived import Envelopes, EventColumns, SentColumns, Wanted
from workledger.model.records import Event
from workledger.training.archive_files import HashingFile
from workledger.training.arrow_sent import instants, numbers, texts, uuids

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtra("the archive needs pyarrow: pip install 'workledger[parquet]'", extra="parquet") from error

__all__ = ["EventFile", "EventFileWriter"]

# pyarrow comes without types.
_Table: TypeAlias = Any
_Column: TypeAlias = Any

FORMAT_VERSION: Final = 1
#: A row group ends with the row that brings it to either.
GROUP_ROWS: Final = 65_536
GROUP_BYTES: Final = 64 * 1024 * 1024
_KEPT_GROUPS: Final = 2
_BATCH_ROWS: Final = 1000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT: Final = pa.timestamp("us", tz="UTC")
_SCHEMA: Final = pa.schema(
    [
        pa.field("position", pa.int64(), nullable=False),
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("event_type", pa.string(), nullable=False),
        pa.field("entity_type", pa.string()),
        pa.field("entity_id", pa.string()),
        pa.field("workflow_id", pa.string()),
        pa.field("severity", pa.string()),
        pa.field("created_at", _INSTANT, nullable=False),
        pa.field("recorded_at", _INSTANT, nullable=False),
        pa.field("schema_version", pa.int16(), nullable=False),
        pa.field("salt", pa.string(), nullable=False),
        pa.field("payload", pa.string()),
    ],
    metadata={"workledger.archive": "events", "workledger.format_version": str(FORMAT_VERSION)},
)
_NAMES: Final[list[str]] = list(_SCHEMA.names)
_EVENT_COLUMNS: Final = (*Event.__struct_fields__[:-1], "payload")
_ENVELOPE_TEXTS: Final = ("event_type", "entity_type", "entity_id", "workflow_id", "severity")
_REPEATING: Final = ("event_type", "entity_type", "severity", "schema_version", "workflow_id")
_NEEDS_ESCAPE: Final = b'"\\' + bytes(range(0x20))
_UUID_CHARS: Final = 36
_UUID_BYTES: Final = 16
_OPTIONS: Final[dict[str, Any]] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": list(_REPEATING),
    "column_encoding": {"position": "DELTA_BINARY_PACKED"},
    "write_statistics": [name for name in _NAMES if name not in {"payload", "salt"}],
    "write_page_checksum": True,
    "store_schema": False,
}
# As jsonb prints a reference to a stored payload: its keys are sorted by their length.
_MARK: Final = b'"$workledger": "payload"'
_REFERENCE: Final = re.compile(rb'"digest": "([0-9a-f]{64})", "\$workledger": "payload"')


class EventFileWriter:
    """Writes events into a file, sorted by position by whoever gives them."""

    def __init__(self, sink: HashingFile) -> None:
        self._parquet = pq.ParquetWriter(sink, _SCHEMA, **_OPTIONS)
        self._parquet.add_key_value_metadata(dict(_SCHEMA.metadata))
        self._waiting: list[_Table] = []
        self._waiting_bytes = 0
        self.rows = 0

    def write(self, rows: int, columns: SentColumns) -> None:
        """Add rows."""
        table = table_of(rows, columns)
        self._waiting.append(table)
        self._waiting_bytes += table.nbytes
        self.rows += rows
        if self._waiting_bytes >= GROUP_BYTES or sum(one.num_rows for one in self._waiting) >= GROUP_ROWS:
            self._write_group()

    def close(self) -> None:
        """Write the last rows and the footer. The sink is its owner's to close."""
        self._write_group()
        self._parquet.close()

    def give_up(self) -> None:
        """Leave the file as it is: it will never be one."""
        self._waiting.clear()
        self._parquet.is_open = False  # or pyarrow would write a footer when it is collected

    def _write_group(self) -> None:
        if self._waiting:
            columns = pa.concat_tables(self._waiting).combine_chunks().columns
            table = pa.Table.from_arrays(columns, schema=_SCHEMA)
            self._waiting.clear()
            self._waiting_bytes = 0
            self._parquet.write_table(table, row_group_size=table.num_rows)


def table_of(rows: int, sent: SentColumns) -> _Table:
    """The Arrow table of a stretch of events; raises `StoreCorrupted` when what was sent does not fit together."""
    return pa.Table.from_arrays(
        [
            numbers(sent.position, rows, pa.int64()),
            uuids(sent.event_id, rows),
            texts(sent.event_type, sent.event_type_sizes, rows),
            texts(sent.entity_type, sent.entity_type_sizes, rows),
            texts(sent.entity_id, sent.entity_id_sizes, rows),
            texts(sent.workflow_id, sent.workflow_id_sizes, rows),
            texts(sent.severity, sent.severity_sizes, rows),
            instants(sent.created_at, rows),
            instants(sent.recorded_at, rows),
            numbers(sent.schema_version, rows, pa.int16()),
            uuids(sent.salt, rows),
            texts(sent.payload, sent.payload_sizes, rows),
        ],
        schema=_SCHEMA,
    )


class _Group(msgspec.Struct, frozen=True):
    """A row group and the positions it spans."""

    number: int
    first: int
    last: int


class EventFile:
    """The events of one file (`model.archived.EventArchive`), which it closes. `location` is what errors name."""

    def __init__(self, file: BinaryIO, *, location: str) -> None:
        self._location = location
        self._file = file
        with self._reading():
            self._parquet = pq.ParquetFile(file, page_checksum_verification=True)
            self._check_version()
            self._groups = [self._group(number) for number in range(self._parquet.num_row_groups)]
        self._tables: OrderedDict[int, _Table] = OrderedDict()

    def __del__(self) -> None:
        # Whoever reads holds on to this, and lets go of it when it has read enough.
        self._file.close()

    @property
    def names(self) -> list[str]:
        """The names of the columns of `tables`."""
        return list(_NAMES)

    @property
    def ids(self) -> tuple[str, str]:
        """The smallest and the largest id of the events, by the statistics."""
        column = _NAMES.index("event_id")
        found = [self._parquet.metadata.row_group(group.number).column(column).statistics for group in self._groups]
        return min(_as_text(one.min) for one in found), max(_as_text(one.max) for one in found)

    @property
    def rows(self) -> int:
        """How many events the file says it has."""
        return self._parquet.metadata.num_rows

    def events(self, *, after: int, upto: int, wanted: Wanted, newest_first: bool = False) -> Iterator[Event]:
        """Give the events that are wanted, in the order of the log or against it."""
        groups = self._overlapping(after, upto)
        for group in reversed(groups) if newest_first else groups:
            if not self._may_have(group, wanted):
                continue
            table = _select(self._within(group, after, upto), wanted)
            yield from self._told(_reversed(table) if newest_first else table)

    def lines(self, *, after: int, upto: int) -> Iterator[tuple[int, bytes]]:
        """Give each event as its position and its line of JSON, as PostgreSQL writes it."""
        for columns in self.columns(after=after, upto=upto):
            yield from zip(columns.position, _lines(columns), strict=True)

    def over_time(self, *, from_id: str, before_id: str, event_type: str | None) -> Iterator[Event]:
        """Give the events with ids from one up to, but without, another, in the order of their ids."""
        order = self._rows_by_id(from_id, before_id)
        sizes = (self._parquet.metadata.row_group(group.number).num_rows for group in self._groups)
        starts = list(accumulate(sizes, initial=0))
        wanted = Wanted(event_type=event_type)
        for at in range(0, len(order), _BATCH_ROWS):
            yield from self._told(_select(self._rows(order[at : at + _BATCH_ROWS], starts), wanted))

    def columns(self, *, after: int, upto: int) -> Iterator[EventColumns]:
        """Give the events by column, a row group at a time."""
        for group in self._overlapping(after, upto):
            table = self._within(group, after, upto)
            if table.num_rows:
                yield _columns(table)

    def envelopes(self, *, after: int, upto: int) -> Iterator[Envelopes]:
        """Give the events as their digests are made of them, a row group at a time."""
        for group in self._overlapping(after, upto):
            table = self._within(group, after, upto)
            if table.num_rows:
                with self._reading():
                    yield _envelopes(table)

    def tables(self) -> Iterator[_Table]:
        """Give the columns of `events` as Arrow tables, to be copied elsewhere."""
        for group in self._groups:
            yield self._table(group)

    def _group(self, number: int) -> _Group:
        statistics = self._parquet.metadata.row_group(number).column(0).statistics
        if statistics is None or not statistics.has_min_max:
            raise ValueError("its row groups have no statistics")
        return _Group(number, statistics.min, statistics.max)

    def _check_version(self) -> None:
        told = self._parquet.schema_arrow.metadata or self._parquet.metadata.metadata or {}
        version = (self._parquet.metadata.metadata or told).get(b"workledger.format_version", b"").decode()
        if version != str(FORMAT_VERSION) or self._parquet.schema_arrow.names != _NAMES:
            raise ValueError(f"it is no archive of events in version {FORMAT_VERSION}")

    def _overlapping(self, after: int, upto: int) -> list[_Group]:
        return [group for group in self._groups if group.last > after and group.first <= upto]

    def _may_have(self, group: _Group, wanted: Wanted) -> bool:
        """Say whether a group can have what is wanted, by its statistics."""
        row_group = self._parquet.metadata.row_group(group.number)
        for name in ("event_type", "entity_type", "entity_id", "workflow_id"):
            value = getattr(wanted, name)
            if value is None:
                continue
            statistics = row_group.column(_NAMES.index(name)).statistics
            if statistics is not None and statistics.has_min_max:
                low, high = statistics.min, statistics.max
                if not _as_text(low) <= value <= _as_text(high):
                    return False
        return True

    def _within(self, group: _Group, after: int, upto: int) -> _Table:
        table = self._table(group)
        if group.first > after and group.last <= upto:
            return table
        position = table["position"].combine_chunks()
        first = _count_upto(position, after)
        return table.slice(first, _count_upto(position, upto) - first)

    def _table(self, group: _Group) -> _Table:
        found = self._tables.get(group.number)
        if found is None:
            with self._reading():
                found = self._parquet.read_row_group(group.number, use_threads=False)
                if found["position"].null_count or not _ascends(found["position"]):
                    raise ValueError("its positions do not ascend")
            self._tables[group.number] = found
            if len(self._tables) > _KEPT_GROUPS:
                self._tables.popitem(last=False)
        return found

    def _rows_by_id(self, from_id: str, before_id: str) -> list[int]:
        """Give the numbers of the rows whose ids lie between two, in the order of the ids."""
        with self._reading():
            ids = self._parquet.read(columns=["event_id"], use_threads=False)["event_id"].combine_chunks()
        inside = pc.call_function(
            "and", [pc.call_function("greater_equal", [ids, from_id]), pc.call_function("less", [ids, before_id])]
        )
        rows = pc.call_function("indices_nonzero", [inside])
        order = pc.call_function("sort_indices", [ids.take(rows)])
        return rows.take(order).to_pylist()

    def _rows(self, numbers: list[int], starts: list[int]) -> _Table:
        parts: list[_Table] = []
        for at, run in groupby(numbers, key=lambda number: bisect_right(starts, number) - 1):
            parts.append(
                self._table(self._groups[at]).take(pa.array([number - starts[at] for number in run], pa.int64()))
            )
        return pa.concat_tables(parts)

    def _told(self, table: _Table) -> Iterator[Event]:
        for batch in table.select(list(_EVENT_COLUMNS)).to_batches(max_chunksize=_BATCH_ROWS):
            yield from map(Event, *(_values(column) for column in batch.columns))

    @contextmanager
    def _reading(self) -> Generator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise StoreCorrupted(
                f"{self._location} cannot be read as an archive of events: {error}", location=self._location
            ) from error


def _reversed(table: _Table) -> _Table:
    return table.take(pa.array(range(table.num_rows - 1, -1, -1), pa.int64()))


def _select(table: _Table, wanted: Wanted) -> _Table:
    for name in ("event_type", "entity_type", "entity_id", "workflow_id"):
        value = getattr(wanted, name)
        if value is not None:
            table = table.filter(pc.call_function("equal", [table[name], pa.scalar(value, pa.string())]))
    return table


def _columns(table: _Table) -> EventColumns:
    lists = {name: table[name].to_pylist() for name in _NAMES if name not in {"created_at", "recorded_at", "payload"}}
    return EventColumns(
        **lists,
        created_at=[f"{text}Z" for text in _instants(table["created_at"]).to_pylist()],
        recorded_at=[f"{text}Z" for text in _instants(table["recorded_at"]).to_pylist()],
        payload=table["payload"].cast(pa.binary()).to_pylist(),
    )


def _envelopes(table: _Table) -> Envelopes:
    table = table.combine_chunks()
    is_plain = all(_is_plain(_data_of(table[name])) for name in _ENVELOPE_TEXTS)
    return Envelopes(
        position=table["position"].to_pylist(),
        event_id=table["event_id"].to_pylist(),
        salts=_salts(table["salt"]),
        payload=table["payload"].cast(pa.binary()).to_pylist(),
        rests=_rests(table) if is_plain else (),
        workflows=_spans(table),
        digests=_digests(table["payload"]),
    )


def _rests(table: _Table) -> list[bytes]:
    """Write envelopes as canonical JSON, from behind the commitment on; the names of the members are sorted."""
    text = {name: _json_text(table[name]) for name in _ENVELOPE_TEXTS}
    parts = (
        *('","created_at":"', _instants(table["created_at"])),
        *('Z","entity_id":', text["entity_id"]),
        *(',"entity_type":', text["entity_type"]),
        *(',"event_id":"', table["event_id"]),
        *('","event_type":', text["event_type"]),
        *(',"position":', table["position"].cast(pa.string())),
        *(',"recorded_at":"', _instants(table["recorded_at"])),
        *('Z","schema_version":', table["schema_version"].cast(pa.string())),
        *(',"severity":', text["severity"]),
        *(',"workflow_id":', text["workflow_id"], "}"),
    )
    return _joined(*parts).cast(pa.binary()).to_pylist()


def _json_text(column: _Column) -> _Column:
    return pc.call_function("coalesce", [_joined('"', column, '"'), pa.scalar("null")])


def _joined(*parts: _Column | str) -> _Column:
    values = [pa.scalar(part) if isinstance(part, str) else part for part in parts]
    return pc.call_function("binary_join_element_wise", [*values, pa.scalar("")])


def _spans(table: _Table) -> list[tuple[str, int, int]]:
    """Give the workflows of events, with their first and last position here."""
    spans = table.select(["workflow_id", "position"]).group_by("workflow_id", use_threads=False)
    spans = spans.aggregate([("position", "min"), ("position", "max")])
    found = zip(*(spans[name].to_pylist() for name in ("workflow_id", "position_min", "position_max")), strict=True)
    return [one for one in found if one[0] is not None]


def _data_of(column: _Column) -> bytes:
    """Give the texts of a column one after the other, and maybe of rows around them."""
    data = None if column.num_chunks == 0 else column.chunk(0).buffers()[2]
    return b"" if data is None else data.to_pybytes()


def _is_plain(texts: bytes) -> bool:
    return len(texts.translate(None, _NEEDS_ESCAPE)) == len(texts)


def _salts(column: _Column) -> bytes:
    """Give the bytes of UUIDs, one after the other."""
    start = column.chunk(0).offset * _UUID_CHARS
    text = _data_of(column)[start : start + len(column) * _UUID_CHARS].decode()
    salts = bytes.fromhex(text.replace("-", ""))
    if len(salts) != len(column) * _UUID_BYTES or column.null_count:
        raise ValueError("a salt is no UUID")
    return salts


def _values(column: _Column) -> list[Any]:
    """Give a column as Python values; pyarrow's own way to an instant is several times slower."""
    if column.type == _INSTANT:
        return [_EPOCH + timedelta(microseconds=number) for number in column.cast(pa.int64()).to_pylist()]
    return column.to_pylist()


def _instants(column: _Column) -> _Column:
    """Write instants as digests and lines have them but for the Z; Arrow writes the same with a blank."""
    texts = column.cast(pa.timestamp("us")).cast(pa.string())
    return pc.call_function("replace_substring", [texts], pc.ReplaceSubstringOptions(" ", "T", max_replacements=1))


def _digests(payloads: _Column) -> frozenset[bytes]:
    """Give the stored payloads that events refer to."""
    if _MARK not in _data_of(payloads):
        return frozenset()
    found = pc.call_function("match_substring", [payloads], pc.MatchSubstringOptions(_MARK.decode()))
    referring = payloads.filter(found).cast(pa.binary()).to_pylist()
    return frozenset(bytes.fromhex(one.decode()) for text in referring for one in _REFERENCE.findall(text))


def _lines(columns: EventColumns) -> Iterator[bytes]:
    texts = ("event_type", "entity_type", "entity_id", "workflow_id", "severity")
    quoted = (map(orjson.dumps, getattr(columns, name)) for name in texts)
    rest = (columns.position, columns.event_id, columns.created_at, columns.recorded_at, columns.schema_version)
    for (kind, what, who, workflow, severity), (position, event_id, created, recorded, version), payload in zip(
        zip(*quoted, strict=True), zip(*rest, strict=True), columns.payload, strict=True
    ):
        yield b"".join(
            (
                f'{{"position":{position},"event_id":"{event_id}","event_type":'.encode(),
                kind,
                b',"entity_type":',
                what,
                b',"entity_id":',
                who,
                b',"workflow_id":',
                workflow,
                b',"severity":',
                severity,
                f',"created_at":"{created}","recorded_at":"{recorded}","schema_version":{version},"payload":'.encode(),
                b"null" if payload is None else payload,
                b"}\n",
            )
        )


def _ascends(positions: _Column) -> bool:
    values = positions.combine_chunks()
    if len(values) < 2:  # noqa: PLR2004  one row is in order
        return True
    return bool(pc.call_function("all", [pc.call_function("less", [values[:-1], values[1:]])]).as_py())


def _count_upto(positions: _Column, limit: int) -> int:
    """Count the positions up to a limit; they ascend."""
    return bisect_right(positions, limit, key=lambda scalar: scalar.as_py())


def _as_text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
