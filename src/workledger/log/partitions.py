"""The partitions of the log: made ahead, read out to be archived, and dropped once they are."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from psycopg import sql

from workledger.log.archive_index import files
from workledger.model.archived import SentColumns
from workledger.postgres.blocking import Repeated
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = [
    "Partition",
    "Staged",
    "Stretch",
    "drop",
    "live_workflows",
    "make_ahead",
    "oldest_event_at",
    "partitions",
    "staged",
    "waiting",
]

AHEAD_MONTHS: Final = 3
#: A partition is locked in tries of this length, so that nobody who records waits for longer.
LOCK_TIMEOUT_MS: Final = 100
LOCK_TRIES: Final = 30
_LOT_ROWS: Final = 16_384
_LOT_BYTES: Final = 32 * 1024 * 1024
_POSITION_BYTES: Final = 8


class Partition(msgspec.Struct, frozen=True):
    """A partition and what belongs into it: ids and times from the first, up to but without the next."""

    name: str
    first_id: str
    next_id: str
    first_time: datetime
    next_time: datetime


class Stretch(msgspec.Struct, frozen=True):
    """Some of what is being archived: how many events, and from where to where."""

    rows: int
    first_position: int
    last_position: int


def partitions(connection: Connection) -> list[Partition]:
    """The partitions of the log in the order of their times."""
    return [Partition(*row) for row in _fetch(connection, "partitions", ())]


def make_ahead(connection: Connection, *, months: int = AHEAD_MONTHS) -> list[str]:
    """Make the partitions of this month and of those to come; returns the names of those that were missing."""
    return [name for (name,) in _fetch(connection, "make_ahead", (months,))]


def waiting(connection: Connection, partition: Partition) -> int:
    """How many events of a partition wait for a position."""
    ((count,),) = _fetch(connection, "waiting_between", (partition.first_id, partition.next_id))
    return count


def live_workflows(connection: Connection, partition: Partition, *, limit: int, but_leaving: bool = False) -> list[str]:
    """Workflows that are in the state and have events in a partition; without those that are chosen to leave."""
    name = "live_workflows_left" if but_leaving else "live_workflows"
    return [row[0] for row in _fetch(connection, name, (partition.first_id, partition.next_id, limit))]


def oldest_event_at(connection: Connection) -> datetime | None:
    """When the oldest event of the database was made; None when there is none."""
    ((at,),) = _fetch(connection, "oldest_event", ())
    return at


def drop(connection: Connection, partition: str, *, tries: int = LOCK_TRIES, timeout_ms: int = LOCK_TIMEOUT_MS) -> int:
    """Drop a partition whose events are all archived, and return how many they were.

    The driver's errors come as they are: `ObjectNotInPrerequisiteState` when not all are archived (something was
    recorded meanwhile), `LockNotAvailable` when it is in use all the time. Then nothing has happened.
    """
    with connection.transaction(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.log", "drop_archived_partition"), (partition, tries, timeout_ms))
        ((rows,),) = cursor.fetchall()
        return rows


class Staged:
    """The events of a partition that are not archived yet, as they were at one moment."""

    def __init__(self, connection: Connection, partition: Partition) -> None:
        self._connection = connection
        self._partition = partition
        ((self.rows, self.positions, self.first, self.last),) = _fetch(connection, "count_archiving", ())

    def stretch(self, *, after: int, rows: int) -> Stretch | None:
        """The next stretch after a position; None when there is no more."""
        (row,) = _fetch(self._connection, "cut_archiving", (after, rows))
        return Stretch(*row) if row[0] else None

    def lots(self, *, after: int, upto: int) -> Iterator[tuple[int, SentColumns]]:
        """The events at positions after one and up to another, in order: lots of them, and how many each has.

        While a lot is worked on, the next is made. It comes in one call, which leaves other threads alone meanwhile.
        """
        statement = load("workledger.log", "archiving_columns").replace("{partition}", self._quoted)
        with (
            translate_errors(),
            self._connection.transaction(),
            ThreadPoolExecutor(1, thread_name_prefix="workledger-archive-read") as pool,
        ):
            self._connection.execute(load("workledger.log", "pin_plans"))
            made = Repeated(self._connection, statement)
            coming = pool.submit(_lot, made, after, upto)
            while lot := coming.result():
                rows, columns = lot
                last = int.from_bytes(columns.position[-_POSITION_BYTES:], "big")
                coming = pool.submit(_lot, made, last, upto)
                yield rows, columns

    @property
    def _quoted(self) -> str:
        return sql.Identifier(self._partition.name).as_string(self._connection)


def _lot(made: Repeated, after: int, upto: int) -> tuple[int, SentColumns] | None:
    result = made.run(after, upto, _LOT_ROWS, _LOT_BYTES)
    rows, *columns = (result.get_value(0, number) or b"" for number in range(result.nfields))
    count = int.from_bytes(rows, "big")
    return (count, SentColumns(*columns)) if count else None


@contextmanager
def staged(connection: Connection, partition: Partition) -> Generator[Staged]:
    """Give what a partition has that no file of the archive has. Needs a session of its own (temporary tables)."""
    archived = [file for file in files(connection, kind="events") if file.source == partition.name]
    after = max((file.last_position or 0 for file in archived if file.removed_at is None), default=0)
    _run(connection, "drop_archiving")
    _run(connection, "make_archiving")
    try:
        with translate_errors(), psycopg.RawCursor(connection) as cursor:
            cursor.execute(load("workledger.log", "fill_archiving"), (partition.first_id, partition.next_id, after))
        _run(connection, "index_archiving")
        _run(connection, "vacuum_archiving")
        yield Staged(connection, partition)
    finally:
        if not connection.closed and not connection.broken:
            _run(connection, "drop_archiving")


def _run(connection: Connection, name: LiteralString) -> None:
    with translate_errors():
        connection.execute(load("workledger.log", name), prepare=False)


def _fetch(connection: Connection, name: LiteralString, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.log", name), parameters)
        return cursor.fetchall()
