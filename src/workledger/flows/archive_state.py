"""The arrow from finished workflows to the archive: their rows into files, then out of the state tables.

A batch is chosen and written at one moment. Each workflow is looked at again, locked, before it goes: when one of its
rows has changed, or it was resumed, it stays. It goes by the event `workflow.archived`, so that a replay of the log
takes the same rows away.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from workledger.errors import StoreCorrupted, WorkledgerError
from workledger.flows.archive_files import Archive, Written, whole
from workledger.log import archive_index
from workledger.model.archive_change import archive_workflow
from workledger.model.archived import ArchiveFile
from workledger.model.change import Change
from workledger.operational import archiving
from workledger.operational.apply import apply_in_transaction, make_partitions
from workledger.operational.archiving import STATE_FILES, Leaving
from workledger.postgres.connection import Connection, translate_errors
from workledger.training.archive_files import HashingFile
from workledger.training.table_archive import TableFile, TableFileWriter, same_rows

__all__ = ["BATCH", "Left", "StateArchiver"]

#: So many workflows are written to files at once.
BATCH: Final = 20_000
_PART: Final = 200


@dataclass(slots=True, kw_only=True)
class Left:
    """What left the state tables. `stayed` workflows were being written to, and are tried again another time."""

    workflows: int = 0
    stayed: int = 0
    rows: int = 0
    files: list[str] = field(default_factory=list[str])
    size_bytes: int = 0


class StateArchiver:
    """Archives finished workflows. The connection needs a session of its own."""

    def __init__(self, connection: Connection, archive: Archive, *, batch: int = BATCH) -> None:
        self._connection = connection
        self._archive = archive
        self._batch = batch

    def move(self, *, before: datetime, upto: int) -> Left:
        """Archive the workflows that ended before a time and whose events are at positions up to `upto`."""
        self._finish_others()
        left = Left()
        try:
            while self._move_batch(left, before=before, upto=upto):
                pass
        finally:
            if not self._connection.closed and not self._connection.broken:
                archiving.discard(self._connection)
        return left

    @contextmanager
    def rehearsing(self, *, before: datetime, upto: int, limit: int) -> Generator[int]:
        """Give how many workflows would go, as far as a limit; for the block, it is known which."""
        try:
            with self._snapshot():
                chosen = archiving.choose(self._connection, before=before, upto=upto, limit=limit)
            yield chosen
        finally:
            archiving.discard(self._connection)

    def _finish_others(self) -> None:
        """Say that nothing more leaves for the files of whoever was killed; what has not left is chosen again."""
        sources = {file.source for file in archive_index.files(self._connection) if _waits(file)}
        for source in sources:
            archive_index.mark_removed(self._connection, source)

    def _move_batch(self, left: Left, *, before: datetime, upto: int) -> bool:
        """Move a batch; False when there is no more, or nothing of it could go."""
        source = f"state/{self._archive.clock.now():%Y%m%dT%H%M%S.%fZ}"
        with self._snapshot():
            chosen = archiving.choose(self._connection, before=before, upto=upto, limit=self._batch)
            if not chosen:
                return False
            written = [one for table in STATE_FILES if (one := self._write(table, source)) is not None]
            for file in written:
                self._compare(file)
        self._archive.record(self._connection, written)
        gone = sum(self._take_away(page, source) for page in archiving.ids(self._connection, page=_PART))
        archive_index.mark_removed(self._connection, source)
        self._archive.on_step("removed", source)
        left.workflows += gone
        left.stayed += chosen - gone
        left.rows += sum(file.rows for file in written)
        left.files += [file.url for file in written]
        left.size_bytes += sum(file.size_bytes for file in written)
        return gone > 0

    @contextmanager
    def _snapshot(self) -> Generator[None]:
        """Have everything in the block see one moment."""
        with translate_errors(), self._connection.transaction():
            self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            yield

    # -- files --------------------------------------------------------------------------------------------------

    def _write(self, table: str, source: str) -> ArchiveFile | None:
        columns = archiving.columns_of(self._connection, table)

        def fill(sink: HashingFile) -> int:
            with whole(TableFileWriter(sink, table=table, columns=columns)) as writer:
                for row in archiving.copy(self._connection, table, columns):
                    writer.write(row)
            return writer.rows

        if not archiving.any_of(self._connection, table):
            return None
        written, rows = self._archive.write(f"{source}/{table}.parquet", fill)
        return self._archive.recorded(written, kind=table, source=source, rows=rows)

    def _compare(self, file: ArchiveFile) -> None:
        """Read a file again, and its rows from the database, which is still at the same moment."""
        written = Written(name=file.name, url=file.url, sha256=file.sha256, size_bytes=file.size_bytes)
        self._archive.check_bytes(written)
        columns = archiving.columns_of(self._connection, file.kind)
        with self._archive.files.open(file.name) as content:
            table = TableFile(content, location=file.url)
            if not same_rows(table, archiving.copy(self._connection, file.kind, columns)):
                raise StoreCorrupted(f"{file.url} does not have the rows it was made of", location=file.url)
        self._archive.on_step("checked", file.name)

    # -- out of the state ---------------------------------------------------------------------------------------

    def _take_away(self, workflow_ids: Sequence[str], source: str) -> int:
        at = self._archive.clock.now()
        with translate_errors(), self._connection.transaction():
            locked = archiving.lock(self._connection, workflow_ids)
            going = archiving.unchanged(self._connection, self._with_conversations(locked))
            changes = [_change(one, source, at) for one in going]
            if changes:
                make_partitions(self._connection, changes)
                for outcome in apply_in_transaction(self._connection, changes):
                    if isinstance(outcome, WorkledgerError):
                        raise outcome
        self._archive.on_step("left", source)
        return len(going)

    def _with_conversations(self, locked: Sequence[Leaving]) -> list[Leaving]:
        """Those whose conversations can all go with them."""
        wanted = [conversation for one in locked for conversation in one.conversations]
        workflows = [one.workflow_id for one in locked]
        free = archiving.lock_conversations(self._connection, wanted, of=workflows)
        return [one for one in locked if free.issuperset(one.conversations)]


def _waits(file: ArchiveFile) -> bool:
    return file.removed_at is None and file.kind in STATE_FILES


def _change(one: Leaving, source: str, at: datetime) -> Change:
    return archive_workflow(
        workflow_id=one.workflow_id,
        archive=source,
        conversations=one.conversations,
        feedback=one.feedback,
        first_position=one.first_position,
        last_position=one.last_position,
        at=at,
    )
