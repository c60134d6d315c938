"""Is every position in the tables of a lake once, and does every row say what the log says (promise 5)?

The rows are made again from the log, a stretch at a time, and compared with those that the tables have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from workledger.errors import StoreCorrupted
from workledger.flows.verify_training import TrainingReport
from workledger.log.reader import head
from workledger.postgres.connection import Connection
from workledger.training.deriver import Deriver
from workledger.training.lake import LakeStore, lake_batches
from workledger.training.lake_diff import differences
from workledger.training.log_lines import LogLines
from workledger.training.records import RecordType

__all__ = ["repair_lake", "verify_lake"]

_PAGE: Final = 2000
_STRETCH_POSITIONS: Final = 20_000
_STRETCH_BYTES: Final = 16 * 1024 * 1024
_NO_LIMIT: Final = 2**62

Progress = Callable[[int, int], None]
Lines = dict[RecordType, list[bytes]]


def verify_lake(connection: Connection, store: LakeStore, *, on_progress: Progress | None = None) -> TrainingReport:
    """Compare the tables with the log, up to where the store had come when this began.

    Safe while others record and land. `on_progress` hears the position reached and the last one.
    """
    report = TrainingReport(head=head(connection)[0], position=store.position())
    _check_same_log(connection, store, report)
    for first, last, lines in _stretches(connection, report.position):
        for record_type in RecordType:
            _compare(store, record_type, lines[record_type], first=first, last=last, report=report)
        if on_progress is not None:
            on_progress(last, report.position)
    _check_counts(connection, report)
    _check_beyond(store, report)
    return report


def repair_lake(connection: Connection, store: LakeStore, *, on_progress: Progress | None = None) -> int:
    """Put right the rows that are not what the log says, and give how many stretches of a table that took."""
    repaired, position = 0, store.position()
    for first, last, lines in _stretches(connection, position):
        for record_type in RecordType:
            report = TrainingReport()
            store.table(record_type).position()
            _compare(store, record_type, lines[record_type], first=first, last=last, report=report)
            if not report.ok:
                batches = lake_batches(record_type, [lines[record_type]]) if lines[record_type] else iter(())
                store.table(record_type).replace(batches, first=first, last=last)
                repaired += 1
        if on_progress is not None:
            on_progress(last, position)
    return repaired


def _stretches(connection: Connection, position: int) -> Iterator[tuple[int, int, Lines]]:
    """Give the lines that the log has, in stretches of bounded size."""
    log = LogLines(connection)
    deriver = Deriver(log)
    first, size_bytes = 1, 0
    lines: Lines = {record_type: [] for record_type in RecordType}
    for page in log.iterate(after=0, upto=position, page=_PAGE):
        for record_type, lot in deriver.derive(page):
            lines[record_type] += lot
            size_bytes += sum(map(len, lot))
        last = page[-1][0]
        if last == position or size_bytes >= _STRETCH_BYTES or last - first >= _STRETCH_POSITIONS:
            yield first, last, lines
            first, size_bytes = last + 1, 0
            lines = {record_type: [] for record_type in RecordType}


def _compare(
    store: LakeStore, record_type: RecordType, lines: list[bytes], *, first: int, last: int, report: TrainingReport
) -> None:
    rows, faults = differences(store.table(record_type), record_type, lines, first=first, last=last)
    report.rows[record_type] += rows
    for position, what in faults:
        where = str(record_type) if position is None else f"{record_type}[{position}]"
        report.add("schema" if position is None else "line", where, what)


def _check_same_log(connection: Connection, store: LakeStore, report: TrainingReport) -> None:
    if not report.position:
        return
    try:
        theirs = store.last_event_id(report.position)
    except StoreCorrupted:
        return  # the stretch that it is in says more
    ours = LogLines(connection).event_id(report.position)
    if theirs != ours:
        message = f"the event at {report.position} is {theirs}; in the log it is {ours or 'none'}"
        report.add("head", f"events[{report.position}]", message)


def _check_counts(connection: Connection, report: TrainingReport) -> None:
    """Compare with counts that SQL makes of the log, without our own reading of it."""
    for record_type, rows in LogLines(connection).count(after=0, upto=report.position).items():
        if report.rows[record_type] != rows:
            told = f"the table has {report.rows[record_type]} rows up to position {report.position}, the log {rows}"
            report.add("count", str(record_type), told)


def _check_beyond(store: LakeStore, report: TrainingReport) -> None:
    """Rows of events beyond the end would be read before they count. Those of other types are waiting for theirs."""
    beyond = store.table(RecordType.EVENTS).rows(report.position + 1, _NO_LIMIT)
    if beyond.num_rows:
        told = f"{beyond.num_rows} rows are beyond the position that the table says it has come to"
        report.add("unlisted", f"events[{report.position + 1}…]", told)
