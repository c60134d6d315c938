"""A training store that is four tables of a lake, one for each record type.

Each table knows its own progress, in the commit that adds the rows. A range goes into the table of events last: how
far that one has come is how far the store has come, and what the others have beyond that is not written again.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import IO, Any, Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from workledger.errors import StoreCorrupted, Unavailable
from workledger.training.arrow import Batch, Batcher, arrow_schema
from workledger.training.records import SCHEMAS, RecordType
from workledger.training.store import StoreWriter

__all__ = ["LakeStore", "LakeTable", "Maintained", "lake_batches", "lake_schema", "outrun"]

#: Events last: their table says how far the store is.
_ORDER: Final = (RecordType.WORKFLOWS, RecordType.TOOL_EXECUTIONS, RecordType.TASKS, RecordType.EVENTS)
_IN_MEMORY_BYTES: Final = 4 * 1024 * 1024
_BATCH_BYTES: Final = 1024 * 1024
_POSITION: Final = re.compile(rb'\{"position":(\d+)').match
#: The instant that a row belongs to the day of.
_INSTANT: Final = dict.fromkeys(RecordType, "completed_at") | {RecordType.EVENTS: "created_at"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintained:
    """What maintenance did: files joined, those they became, old versions forgotten, files removed."""

    joined: int = 0
    made: int = 0
    expired: int = 0
    removed: int = 0


class LakeTable(Protocol):
    """The table of one record type. It is made with its first rows, and gets new columns when its type has got some.

    Raises `Unavailable` when it cannot be reached, and `ConfigurationError` for what trying again does not mend.
    """

    def position(self) -> int:
        """Read the table anew, and give the last position that was committed to it; 0 when it is not there yet."""
        ...

    def append(self, batches: Iterable[Batch], *, last: int) -> None:
        """Add rows and say that the table has come to `last`, in one commit on top of what was read.

        Raises `Unavailable` with `outrun=True` when somebody else has committed a position since `position()` was
        asked; then nothing was added.
        """
        ...

    def rows(self, first: int, last: int) -> Any:
        """Give the rows of these positions as a `pyarrow.Table`, in ascending order."""
        ...

    def replace(self, batches: Iterable[Batch], *, first: int, last: int) -> None:
        """Put rows in the place of those of these positions, in one commit."""
        ...

    def maintain(self, *, keep: timedelta) -> Maintained:
        """Join small files; throw away what no version younger than `keep` needs. Landing may go on meanwhile."""
        ...


class LakeStore:
    """Four tables in a lake."""

    def __init__(self, name: str, *, tables: Callable[[RecordType], LakeTable]) -> None:
        self.name = name
        self._make = tables
        self._tables: dict[RecordType, LakeTable] = {}

    def table(self, record_type: RecordType) -> LakeTable:
        """Give the table of a record type."""
        if record_type not in self._tables:
            self._tables[record_type] = self._make(record_type)
        return self._tables[record_type]

    def position(self) -> int:
        """Give how far the table of events has come."""
        return self.table(RecordType.EVENTS).position()

    def last_event_id(self, position: int) -> str | None:
        """Give the id of the event at a position; None at the beginning."""
        if not position:
            return None
        found = self.table(RecordType.EVENTS).rows(position, position)
        if found.num_rows != 1:
            raise StoreCorrupted(
                f"{self.name}: the table of events says that it has come to position {position}, and has "
                f"{found.num_rows} rows of it",
                location=f"events[{position}]",
            )
        return found["event_id"][0].as_py()

    @contextmanager
    def writing(self) -> Generator[StoreWriter | None]:
        """Write. Others may be at it too: whoever commits second to one of the tables is refused."""
        writer = _LakeWriter(self)
        try:
            yield writer
        finally:
            writer.discard()


class _LakeWriter:
    """A writer of a `LakeStore`. The rows of the range at hand wait here, long ones on the disk."""

    def __init__(self, store: LakeStore) -> None:
        self._store = store
        self._have = {record_type: store.table(record_type).position() for record_type in _ORDER}
        self._last_event_id = store.last_event_id(self.position)
        self._waiting: dict[RecordType, IO[bytes]] = {}

    @property
    def position(self) -> int:
        """How far the table of events has come."""
        return self._have[RecordType.EVENTS]

    @property
    def last_event_id(self) -> str | None:
        """The id of the event there."""
        return self._last_event_id

    def write(self, record_type: RecordType, lines: Sequence[bytes]) -> None:
        """Keep the lines that their table does not have yet."""
        have = self._have[record_type]
        if have > self.position:
            lines = [line for line in lines if _position(line) > have]
        if not lines:
            return
        if record_type not in self._waiting:
            self._waiting[record_type] = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115  see `discard`
        self._waiting[record_type].write(b"\n".join([*lines, b""]))

    def commit(self, *, last: int, last_event_id: str) -> None:
        """Commit to each table that gets rows, events last."""
        for record_type in _ORDER:
            waiting = self._waiting.get(record_type)
            if waiting is not None:
                waiting.seek(0)
                self._store.table(record_type).append(lake_batches(record_type, _lots(waiting)), last=last)
                self._have[record_type] = last
        self._last_event_id = last_event_id
        self.discard()

    def discard(self) -> None:
        """Forget the range at hand."""
        for waiting in self._waiting.values():
            waiting.close()
        self._waiting.clear()


def outrun(name: str) -> Unavailable:
    """Give the error for a commit that came second."""
    return Unavailable(
        f"{name}: another process has committed meanwhile; this one goes on after it",
        outrun=True,
    )


def lake_schema(record_type: RecordType) -> Any:
    """Give the columns of a table: those of the lines, and the day (UTC) by which it is partitioned."""
    return arrow_schema(SCHEMAS[record_type]).remove_metadata().append(pa.field("day", pa.date32()))


def lake_batches(record_type: RecordType, lots: Iterable[Sequence[bytes]]) -> Iterator[Batch]:
    """Give lines as batches of the columns of their table."""
    batcher = Batcher(SCHEMAS[record_type])
    schema = lake_schema(record_type)
    for lines in lots:
        batch = batcher.batch(lines)
        day = pc.cast(batch.column(schema.get_field_index(_INSTANT[record_type])), pa.date32())
        yield pa.RecordBatch.from_arrays([*batch.columns, day], schema=schema)


def _lots(file: IO[bytes]) -> Iterator[list[bytes]]:
    while lines := file.readlines(_BATCH_BYTES):
        yield [line[:-1] for line in lines]


def _position(line: bytes) -> int:
    found = _POSITION(line)
    return int(found[1]) if found else 0
