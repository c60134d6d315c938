"""The arrow from files of finished runs into the ledger: whole runs, each once, many in a transaction.

A run is in the ledger completely or not at all, whatever is killed when; importing it again changes nothing. Every
run carries the digest of the text it came from, so that the same id with other content is noticed and refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import psycopg

from workledger.errors import Conflict, InvalidInput, InvalidTransition, NotFound, WorkledgerError
from workledger.flows.record import Recorder
from workledger.model.change import Change
from workledger.operational import reads
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = ["ImportReport", "Item", "Refusal", "import_items"]

#: A transaction takes runs until it has this many changes, or this many bytes of large values.
BATCH_CHANGES: Final = 4000
BATCH_BYTES: Final = 16 * 1024 * 1024

_REFUSALS: Final = (InvalidInput, Conflict, NotFound, InvalidTransition)


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a file as the changes of one workflow. `metadata.source_digest` of the workflow is `digest`."""

    line: int
    workflow_id: str
    digest: str
    changes: Sequence[Change]

    @property
    def size_bytes(self) -> int:
        """What its changes weigh."""
        return sum(len(change.payload) + sum(len(blob.body) for blob in change.blobs) for change in self.changes)


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A line that was not imported, and why."""

    line: int
    reason: str


@dataclass(slots=True, kw_only=True)
class ImportReport:
    """What became of each line. `recorded` counts the new changes by event type."""

    imported: int = 0
    already_there: int = 0
    refused: list[Refusal] = field(default_factory=list[Refusal])
    recorded: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def lines(self) -> int:
        """How many lines there were."""
        return self.imported + self.already_there + len(self.refused)


def import_items(
    items: Iterable[Item | Refusal],
    *,
    connection: Connection,
    recorder: Recorder,
    on_line: Callable[[int], None] | None = None,
) -> ImportReport:
    """Record what is not there yet, and say what became of each line.

    A line that is refused is counted and named, the rest goes in. `on_line` hears the number of each line that has
    been dealt with, batch by batch. Any number of processes may import the same file at once. Raises
    `DatabaseUnavailable` when the database goes away; the same import can then be run again.
    """
    report = ImportReport()
    batch: list[Item] = []
    weight = size_bytes = last_line = 0
    for item in items:
        last_line = item.line
        if isinstance(item, Refusal):
            report.refused.append(item)
            continue
        batch.append(item)
        weight += len(item.changes)
        size_bytes += item.size_bytes
        if weight >= BATCH_CHANGES or size_bytes >= BATCH_BYTES:
            _import_batch(batch, report, connection=connection, recorder=recorder)
            batch, weight, size_bytes = [], 0, 0
            _tell(on_line, last_line)
    if batch:
        _import_batch(batch, report, connection=connection, recorder=recorder)
    _tell(on_line, last_line)
    report.refused.sort(key=lambda refusal: refusal.line)
    return report


def _import_batch(batch: Sequence[Item], report: ImportReport, *, connection: Connection, recorder: Recorder) -> None:
    """Look up and write under one lock, held by a transaction of its own, so that importers do not meet."""
    with translate_errors(), connection.transaction(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.flows", "take_import_turn"))
        fresh = _fresh(batch, reads.existing_workflows(connection, [item.workflow_id for item in batch]), report)
        if fresh:
            _record(fresh, report, connection=connection, recorder=recorder)


def _fresh(batch: Sequence[Item], there: dict[str, str | None], report: ImportReport) -> list[Item]:
    fresh: list[Item] = []
    for item in batch:
        if item.workflow_id not in there:
            there[item.workflow_id] = item.digest
            fresh.append(item)
        elif there[item.workflow_id] == item.digest:
            report.already_there += 1
        else:
            reason = (
                f"workflow {item.workflow_id!r} is already recorded with other content; import under another --name"
            )
            report.refused.append(Refusal(line=item.line, reason=reason))
    return fresh


def _record(items: Sequence[Item], report: ImportReport, *, connection: Connection, recorder: Recorder) -> None:
    try:
        recorder.record_all([change for item in items for change in item.changes])
    except _REFUSALS as error:
        if len(items) == 1:
            _refuse(items[0], error, report, connection=connection)
            return
        # One of them cannot be stored and took the transaction with it: each goes alone, and fails alone.
        for item in items:
            _record([item], report, connection=connection, recorder=recorder)
        return
    report.imported += len(items)
    for item in items:
        for change in item.changes:
            report.recorded[change.event_type] = report.recorded.get(change.event_type, 0) + 1


def _refuse(item: Item, error: WorkledgerError, report: ImportReport, *, connection: Connection) -> None:
    """Count a refused line; not when it came in meanwhile: a killed importer's last transaction may outlive it."""
    if reads.existing_workflows(connection, [item.workflow_id]).get(item.workflow_id) == item.digest:
        report.already_there += 1
    else:
        report.refused.append(Refusal(line=item.line, reason=error.message))


def _tell(on_line: Callable[[int], None] | None, line: int) -> None:
    if on_line is not None and line:
        on_line(line)
