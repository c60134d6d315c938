"""The arrow from a partition of the log to the archive: into files, compared with the seals, then dropped.

A partition becomes several files, and while one is compared the next is written. What is recorded is not done again:
whoever is killed goes on after the last file that was recorded. Events that come late into an old month are found when
the partition is locked to be dropped, and get a file of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

import psycopg

from workledger.errors import StoreCorrupted
from workledger.flows.archive_files import Archive, Written, whole
from workledger.log import archive_index, partitions, seal
from workledger.log.archive_leaves import SealComparison, erased_commitments
from workledger.log.partitions import Partition, Staged, Stretch
from workledger.model.archived import ArchiveFile, Envelopes
from workledger.model.ids import time_of
from workledger.postgres.connection import Connection, translated
from workledger.training.archive_files import HashingFile
from workledger.training.event_archive import EventFile, EventFileWriter
from workledger.training.table_archive import PayloadFile, PayloadFileWriter

__all__ = ["FILE_EVENTS", "EventArchiver", "Moved"]

#: A file has so many events at most.
FILE_EVENTS: Final = 500_000
_PAYLOADS_BYTES: Final = 32 * 1024 * 1024
_DIGESTS: Final = 5_000
_SHOWN: Final = 3


@dataclass(slots=True, kw_only=True)
class Moved:
    """What became of a partition. `held` says why it is still there; None when it is gone."""

    partition: str
    events: int = 0
    payloads: int = 0
    files: list[str] = field(default_factory=list[str])
    size_bytes: int = 0
    dropped: bool = False
    held: str | None = None


class EventArchiver:
    """Moves partitions. The connection needs a session of its own; `connect` gives another one like it."""

    def __init__(
        self,
        connection: Connection,
        archive: Archive,
        *,
        connect: Callable[[], Connection],
        file_events: int = FILE_EVENTS,
        lock_tries: int = partitions.LOCK_TRIES,
    ) -> None:
        self._connection = connection
        self._archive = archive
        self._connect = connect
        self._file_events = file_events
        self._lock_tries = lock_tries

    def move(self, partition: Partition, *, upto: int, behind: str) -> Moved:
        """Archive what a partition has and drop it, if nothing in it is beyond `upto`, where the reader `behind` is.

        Raises `StoreCorrupted` when it is not what was sealed.
        """
        moved = Moved(partition=partition.name)
        with partitions.staged(self._connection, partition) as staged:
            moved.held = self._unready(staged)
            if moved.held is None and staged.rows and staged.last > upto:
                moved.held = f"{behind} has come to position {upto} of {staged.last}"
            if moved.held is None and staged.rows:
                self._write_all(partition, staged, moved)
        if moved.held is None:
            self._drop(partition, moved)
        return moved

    def _unready(self, staged: Staged) -> str | None:
        if staged.positions < staged.rows:
            return f"{staged.rows - staged.positions} events have no position yet"
        newest = seal.newest(self._connection)
        sealed = 0 if newest is None else newest.last_position
        if staged.rows and staged.last > sealed:
            return f"positions up to {staged.last} are not sealed yet, only up to {sealed}"
        return None

    # -- files --------------------------------------------------------------------------------------------------

    def _write_all(self, partition: Partition, staged: Staged, moved: Moved) -> None:
        after = 0
        pending: Future[None] | None = None
        with closing(self._connect()) as second, ThreadPoolExecutor(1, thread_name_prefix="workledger-archive") as pool:
            checker = _Checker(second, self._archive, partition, moved)
            while stretch := staged.stretch(after=after, rows=self._file_events):
                written = self._write(partition, staged, stretch)
                if pending is not None:
                    pending.result()
                pending = pool.submit(checker.check, written, stretch)
                after = stretch.last_position
            if pending is not None:
                pending.result()

    def _write(self, partition: Partition, staged: Staged, stretch: Stretch) -> Written:
        name = f"events/{partition.name}-{stretch.first_position:012d}-{stretch.last_position:012d}.parquet"

        def fill(sink: HashingFile) -> int:
            with whole(EventFileWriter(sink)) as writer:
                for rows, columns in staged.lots(after=stretch.first_position - 1, upto=stretch.last_position):
                    writer.write(rows, columns)
            return writer.rows

        written, rows = self._archive.write(name, fill)
        if rows != stretch.rows:
            raise StoreCorrupted(
                f"{partition.name} had {stretch.rows} events from position {stretch.first_position} to "
                f"{stretch.last_position}, and gave {rows}; `workledger verify` says what is wrong",
                location=partition.name,
            )
        return written

    # -- dropping -----------------------------------------------------------------------------------------------

    def _drop(self, partition: Partition, moved: Moved) -> None:
        try:
            partitions.drop(self._connection, partition.name, tries=self._lock_tries)
        except psycopg.errors.ObjectNotInPrerequisiteState as error:
            moved.held = f"{_first_line(error)}: it is archived when this runs again"
        except psycopg.errors.LockNotAvailable as error:
            moved.held = f"{_first_line(error)}: its events are archived, and it is dropped when this runs again"
        except psycopg.Error as error:
            raise translated(error) from error
        else:
            moved.dropped = True
            self._archive.on_step("dropped", partition.name)


class _Checker:
    """Reads files again, compares them with the seals, archives the large values, and records all of it."""

    def __init__(self, connection: Connection, archive: Archive, partition: Partition, moved: Moved) -> None:
        self._connection = connection
        self._archive = archive
        self._partition = partition
        self._moved = moved

    def check(self, written: Written, stretch: Stretch) -> None:
        self._archive.check_bytes(written)
        erased = erased_commitments(
            self._connection, first_id=self._partition.first_id, next_id=self._partition.next_id
        )
        workflows: dict[str, tuple[int, int]] = {}
        digests: set[bytes] = set()
        rows = erased_rows = 0
        content = EventFile(self._archive.files.open(written.name), location=written.url)
        comparison = SealComparison(self._connection, content, location=written.url, erased=erased)
        for envelopes in content.envelopes(after=0, upto=stretch.last_position):
            comparison.check(envelopes)
            rows += len(envelopes.position)
            erased_rows += sum(event_id in erased for event_id in envelopes.event_id) if erased else 0
            digests |= envelopes.digests
            _add_spans(workflows, envelopes)
        self._judge(written, comparison, rows=rows, expected=stretch.rows)
        self._archive.on_step("checked", written.name)
        first_id, last_id = content.ids
        file = self._archive.recorded(
            written,
            kind="events",
            source=self._partition.name,
            rows=rows,
            span=(stretch.first_position, stretch.last_position),
            times=(time_of(first_id), time_of(last_id)),
            erased=erased_rows,
        )
        self._record(file, workflows, digests)

    def _judge(self, written: Written, comparison: SealComparison, *, rows: int, expected: int) -> None:
        if rows == expected and not comparison.findings and not comparison.unsealed:
            return
        found = "; ".join(str(finding) for finding in comparison.findings[:_SHOWN])
        raise StoreCorrupted(
            found or f"{written.url} has {rows} events instead of {expected}, {comparison.unsealed} of them not sealed",
            location=written.url,
        )

    def _record(self, file: ArchiveFile, workflows: dict[str, tuple[int, int]], digests: set[bytes]) -> None:
        payloads = self._write_payloads(file, digests)

        def also() -> None:
            archive_index.add_strays(self._connection, file.name, workflows)
            if payloads is not None:
                archive_index.add_payloads(self._connection, payloads[0].name, payloads[1])

        recorded = [file] if payloads is None else [payloads[0], file]
        self._archive.record(self._connection, recorded, also)
        self._moved.events += file.rows
        self._moved.payloads += 0 if payloads is None else payloads[0].rows
        self._moved.files += [one.url for one in recorded]
        self._moved.size_bytes += sum(one.size_bytes for one in recorded)

    def _write_payloads(self, file: ArchiveFile, digests: set[bytes]) -> tuple[ArchiveFile, list[bytes]] | None:
        """Archive the large values that these events refer to and that no file has yet."""
        missing = self._not_archived(sorted(digests))
        if not missing:
            return None

        def fill(sink: HashingFile) -> list[bytes]:
            with whole(PayloadFileWriter(sink)) as writer:
                for page in _pages(missing):
                    writer.write(archive_index.stored_payloads(self._connection, page))
            return writer.digests

        name = f"payloads/{file.name.removeprefix('events/')}"
        written, stored = self._archive.write(name, fill)
        self._archive.check_bytes(written)
        with self._archive.files.open(written.name) as content:
            found = [blob.digest for blob in PayloadFile(content, location=written.url).checked()]
        if found != stored or stored != [digest for digest, _ in missing]:
            raise StoreCorrupted(f"{written.url} does not have the values it was made of", location=written.url)
        return self._archive.recorded(written, kind="payloads", source=file.source, rows=len(stored)), stored

    def _not_archived(self, digests: list[bytes]) -> list[tuple[bytes, int]]:
        starts = range(0, len(digests), _DIGESTS)
        pages = (archive_index.not_archived(self._connection, digests[at : at + _DIGESTS]) for at in starts)
        return [one for page in pages for one in page]


def _add_spans(workflows: dict[str, tuple[int, int]], envelopes: Envelopes) -> None:
    for workflow_id, first, last in envelopes.workflows:
        known = workflows.get(workflow_id)
        workflows[workflow_id] = (first, last) if known is None else (min(first, known[0]), max(last, known[1]))


def _pages(digests: list[tuple[bytes, int]]) -> Iterator[list[bytes]]:
    """Put digests together until their values are large."""
    page: list[bytes] = []
    size_bytes = 0
    for digest, size in digests:
        page.append(digest)
        size_bytes += size
        if size_bytes >= _PAYLOADS_BYTES or len(page) >= _DIGESTS:
            yield page
            page, size_bytes = [], 0
    if page:
        yield page


def _first_line(error: psycopg.Error) -> str:
    return str(error).splitlines()[0]
