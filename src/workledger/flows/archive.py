"""The arrow from the database to the archive: finished history leaves for files, verified before it goes.

First finished workflows leave the state tables; then every partition of the log that lies before the cutoff leaves,
when no workflow that is still there has an event in it. So whatever is live has its whole history in the database,
and nothing that is recorded later needs what is archived.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import psycopg

from workledger.errors import InvalidInput, Unavailable
from workledger.flows.archive_events import FILE_EVENTS, EventArchiver, Moved
from workledger.flows.archive_files import Archive
from workledger.flows.archive_state import BATCH, Left, StateArchiver
from workledger.log import consumers, partitions, reader
from workledger.log.partitions import Partition
from workledger.model.clock import Clock
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load
from workledger.training.archive_files import ArchiveFiles

__all__ = ["ArchiveReport", "archive"]

logger = logging.getLogger(__name__)

_SHOWN: Final = 3
_COUNTED: Final = 1_000_000


@dataclass(slots=True, kw_only=True)
class ArchiveReport:
    """What an archiving did, or would do. Partitions come in the order of their times."""

    cutoff: datetime
    dry_run: bool = False
    state: Left = field(default_factory=Left)
    partitions: list[Moved] = field(default_factory=list[Moved])

    @property
    def dropped(self) -> int:
        """How many partitions are gone."""
        return sum(one.dropped for one in self.partitions)


def archive(
    connection: Connection,
    *,
    connect: Callable[[], Connection],
    files: ArchiveFiles,
    clock: Clock,
    cutoff: datetime,
    dry_run: bool = False,
    file_events: int = FILE_EVENTS,
    batch: int = BATCH,
    lock_tries: int = partitions.LOCK_TRIES,
    on_step: Callable[[str, str], None] = lambda _step, _what: None,
) -> ArchiveReport:
    """Archive what ended before a time, and say what was done and what is held back, and why.

    Takes an autocommit connection of the owner of the tables, for itself alone; `connect` opens another one like it.
    One archiver works at a time; raises `Unavailable` while another does. Killed anywhere, it goes on where it was;
    run again, it finds nothing more to do. Raises `StoreCorrupted`, and drops nothing, when what it reads is not what
    was sealed.
    """
    if cutoff.tzinfo is None:
        raise InvalidInput(f"cutoff {cutoff} has no time zone", field="cutoff", value=cutoff, limit="aware")
    report = ArchiveReport(cutoff=cutoff, dry_run=dry_run)
    work = Archive(files=files, clock=clock, on_step=on_step)
    with _turn(connection):
        passed = _passed_by_all(connection, cutoff)
        states = StateArchiver(connection, work, batch=batch)
        due = [partition for partition in partitions.partitions(connection) if partition.next_time <= cutoff]
        if dry_run:
            with states.rehearsing(before=cutoff, upto=passed[0], limit=_COUNTED) as report.state.workflows:
                report.partitions = [
                    Moved(partition=one.name, held=_held(connection, one, but_leaving=True)) for one in due
                ]
            return report
        report.state = states.move(before=cutoff, upto=passed[0])
        events = EventArchiver(connection, work, connect=connect, file_events=file_events, lock_tries=lock_tries)
        for partition in due:
            held = _held(connection, partition)
            moved = Moved(partition=partition.name, held=held)
            if held is None:
                moved = events.move(partition, upto=passed[0], behind=passed[1])
            report.partitions.append(moved)
    logger.info("archive.done workflows=%d partitions=%d", report.state.workflows, report.dropped)
    return report


def _held(connection: Connection, partition: Partition, *, but_leaving: bool = False) -> str | None:
    """Why a partition stays; None when it can go."""
    if count := partitions.waiting(connection, partition):
        return f"{count} events have no position yet"
    live = partitions.live_workflows(connection, partition, limit=_SHOWN + 1, but_leaving=but_leaving)
    if live:
        more = ", …" if len(live) > _SHOWN else ""
        return f"it has events of workflows that are not archived: {', '.join(live[:_SHOWN])}{more}"
    return None


def _passed_by_all(connection: Connection, cutoff: datetime) -> tuple[int, str]:
    """The last position that every reader of the log has dealt with, and who is the last of them.

    A reader that has not moved since the cutoff is abandoned; should it come back, it reads the archive.
    """
    last, name = reader.head(connection)[0], "nobody"
    for consumer in consumers.consumers(connection):
        if consumer.position < last and consumer.updated_at >= cutoff:
            last, name = consumer.position, consumer.name
    return last, name


@contextmanager
def _turn(connection: Connection) -> Generator[None]:
    """Be the only archiver, by a lock of the session, which ends with whoever holds it."""
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.flows", "take_archive_turn"))
        ((mine,),) = cursor.fetchall()
    if not mine:
        raise Unavailable("another process is archiving; try again when it is done", is_busy=True)
    try:
        yield
    finally:
        if not connection.closed and not connection.broken:
            with translate_errors():
                connection.execute(load("workledger.flows", "end_archive_turn"))
