"""The lists people ask for all day, each one page by keyset from an index, and the timeline of one workflow."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString, TypeVar, cast

import psycopg

from workledger.errors import InvalidInput, NotFound
from workledger.model.ids import check_event_id
from workledger.model.jsonvalue import escape_text, unescape_text
from workledger.model.records import TaskExecution, Workflow, from_row
from workledger.operational import reads
from workledger.operational.paging import Page, make_page, read_cursor
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = [
    "TimelineEntry",
    "failed_executions",
    "failed_workflows",
    "find_workflows",
    "running_workflows",
    "search_failures",
    "search_workflows",
    "slowest_executions",
    "slowest_workflows",
    "stuck_workflows",
    "timeline",
]

Record = TypeVar("Record")

MAX_LIMIT: Final = 10_000
#: So many of the newest rows are looked at one by one before a search goes through the index of words, which finds
#: all matches before it can sort them. The second number is for words that seem frequent enough to fill a page so.
_PROBES: Final = {"search_newest_workflows": (2_000, 20_000), "search_newest_failures": (500, 5_000)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEntry:
    """One thing that happened in a workflow. `position` is None until the log has given it one.

    `what` is `workflow`, `execution`, `message`, `feedback` or `event`; `title` the name of the workflow, task or
    feedback, or the role of the message. What does not apply is None.
    """

    position: int | None
    event_id: str
    created_at: datetime
    recorded_at: datetime
    event_type: str
    severity: str
    what: str
    entity_type: str
    entity_id: str
    title: str | None
    execution_id: str | None
    parent_execution_id: str | None
    kind: str | None
    retry_count: int | None
    seq: int | None
    execution_time_ms: float | None
    error_type: str | None
    error: str | None


# -- lists ------------------------------------------------------------------------------------------------------


def find_workflows(
    connection: Connection,
    *,
    status: str | None = None,
    name: str | None = None,
    workflow_type: str | None = None,
    tag: str | None = None,
    subject: str | None = None,
    conversation_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[Workflow]:
    """Workflows newest first, filtered; `since` and `until` bound when they began. Inputs and outputs are left out."""
    place = read_cursor("workflows", cursor, datetime, str)
    filters = (status, name, workflow_type, tag, subject, conversation_id, since, until)
    found = _workflows(connection, "find_workflows", (*filters, *place, _one_more(limit)))
    return make_page(found, limit=limit, name="workflows", place=_by_creation)


def running_workflows(connection: Connection, *, cursor: str | None = None, limit: int = 50) -> Page[Workflow]:
    """What is running now, oldest first; not what belongs to a worker whose lease has passed."""
    place = read_cursor("running", cursor, datetime, str)
    found = _workflows(connection, "list_running", (*place, _one_more(limit)))
    return make_page(found, limit=limit, name="running", place=lambda w: (w.started_at, w.workflow_id))


def failed_workflows(
    connection: Connection, *, since: datetime | None = None, cursor: str | None = None, limit: int = 50
) -> Page[Workflow]:
    """Failed workflows, newest failure first."""
    place = read_cursor("failed", cursor, datetime, str)
    found = _workflows(connection, "list_failed_workflows", (since, *place, _one_more(limit)))
    return make_page(found, limit=limit, name="failed", place=lambda w: (w.completed_at, w.workflow_id))


def failed_executions(
    connection: Connection, *, since: datetime | None = None, cursor: str | None = None, limit: int = 50
) -> Page[TaskExecution]:
    """Failed executions, newest failure first."""
    place = read_cursor("failed_executions", cursor, datetime, str)
    found = _executions(connection, "list_failed_executions", (since, *place, _one_more(limit)))
    return make_page(found, limit=limit, name="failed_executions", place=_by_end)


def stuck_workflows(
    connection: Connection, *, quiet_s: float, cursor: str | None = None, limit: int = 50
) -> Page[Workflow]:
    """Running workflows of which nothing has been recorded for `quiet_s` seconds, the longest quiet first."""
    if not quiet_s >= 0:
        raise InvalidInput(f"quiet_s = {quiet_s} is negative", field="quiet_s", value=quiet_s, limit=0)
    place = read_cursor("stuck", cursor, datetime, str)
    found = _workflows(connection, "list_stuck", (float(quiet_s), *place, _one_more(limit)))
    return make_page(found, limit=limit, name="stuck", place=lambda w: (w.updated_at, w.workflow_id))


def slowest_workflows(
    connection: Connection,
    *,
    since: datetime,
    until: datetime,
    name: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[Workflow]:
    """Finished workflows that took longest, of those that began in a time."""
    place = read_cursor("slowest", cursor, float, str)
    found = _workflows(connection, "list_slowest_workflows", (since, until, name, *place, _one_more(limit)))
    return make_page(found, limit=limit, name="slowest", place=lambda w: (w.execution_time_ms, w.workflow_id))


def slowest_executions(
    connection: Connection,
    *,
    since: datetime,
    until: datetime,
    task_name: str | None = None,
    kind: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[TaskExecution]:
    """Executions that took longest, of those that ended in a time."""
    place = read_cursor("slowest_executions", cursor, float, str)
    parameters = (since, until, task_name, kind, *place, _one_more(limit))
    found = _executions(connection, "list_slowest_executions", parameters)
    return make_page(
        found, limit=limit, name="slowest_executions", place=lambda x: (x.execution_time_ms, x.execution_id)
    )


# -- words ------------------------------------------------------------------------------------------------------


def search_workflows(
    connection: Connection,
    text: str,
    *,
    status: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[Workflow]:
    """Workflows whose name or error has the words, newest first.

    Words are whole and in any order; `timeo*` finds words that begin so, `"bad gateway"` words in this order,
    `-word` leaves out, `or` stands between alternatives. Upper and lower case are the same.
    """
    place = read_cursor("search", cursor, datetime, str)
    parameters = (*_query(text), status, since, until, *place, _one_more(limit))
    found = _frequent(_workflows, connection, "search_newest_workflows", parameters, limit=limit)
    if found is None:
        found = _workflows(connection, "search_workflows", parameters)
    return make_page(found, limit=limit, name="search", place=_by_creation)


def search_failures(
    connection: Connection,
    text: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[TaskExecution]:
    """Failed executions whose error or task has the words, newest failure first; words as in `search_workflows`."""
    place = read_cursor("search_failures", cursor, datetime, str)
    parameters = (*_query(text), since, until, *place, _one_more(limit))
    found = _frequent(_executions, connection, "search_newest_failures", parameters, limit=limit)
    if found is None:
        found = _executions(connection, "search_failures", parameters)
    return make_page(found, limit=limit, name="search_failures", place=_by_end)


def _frequent(
    read: Callable[[Connection, LiteralString, tuple[Any, ...]], list[Record]],
    connection: Connection,
    name: LiteralString,
    parameters: tuple[Any, ...],
    *,
    limit: int,
) -> list[Record] | None:
    """A full page from among the newest rows; None when the words are too rare for that."""
    few, many = _PROBES[name]
    found = read(connection, name, (*parameters, few))
    if limit * few < len(found) * many and len(found) <= limit:
        found = read(connection, name, (*parameters, many))
    return found if len(found) > limit else None


_BEGINNING: Final = re.compile(r"(?<!\S)(\w+)\*(?!\S)")
_INSIDE: Final = re.compile(r"(?<=\w)[^\w\s\"]+(?=\w)|[._/:@\\<>]")


def _query(text: str) -> tuple[str, str | None]:
    """What the user typed as PostgreSQL's web search syntax, and the words that only begin so as a tsquery."""
    text = escape_text(text)
    beginnings = _BEGINNING.findall(text)
    # Names come apart in the index as well: `ValueError` and `errors.ValueError` both find `app.errors.ValueError`.
    words = _INSIDE.sub(" ", _BEGINNING.sub(" ", text)).strip()
    if not words and not beginnings:
        raise InvalidInput("the search has no words", field="text", value=text, limit="one word")
    parts = [part for word in beginnings for part in re.split("_+", word) if part]
    return words, " & ".join(f"'{part}':*" for part in parts) or None


# -- one workflow -----------------------------------------------------------------------------------------------


def timeline(
    connection: Connection, workflow_id: str, *, cursor: str | None = None, limit: int = 500
) -> Page[TimelineEntry]:
    """What happened in one workflow, in the order of the log: its changes, executions, messages, feedback, events.

    What has no position in the log yet comes last. Pages of what was recorded before the first of them meet without a
    gap, even when the log is sequenced in between; to miss nothing of what is recorded meanwhile, follow the log.
    Raises `NotFound` when there is no such workflow.
    """
    position, after = read_cursor("timeline", cursor, int, str | None)
    place = (position or 0, after and check_event_id(after))
    rows = _rows(connection, "timeline", (workflow_id, *place, _one_more(limit)))
    if not rows and cursor is None and not reads.existing_workflows(connection, [workflow_id]):
        raise NotFound(f"no workflow {workflow_id!r}", entity_type="workflow", entity_id=workflow_id)
    entries = [_entry(names, row) for names, row in rows]
    return make_page(entries, limit=limit, name="timeline", place=lambda entry: _after(entry, entries, place))


def _after(entry: TimelineEntry, entries: list[TimelineEntry], place: tuple[int, str | None]) -> tuple[int, str | None]:
    """Where the page after `entry` begins: at a position, or at an id once the reader is beyond the positions."""
    reached, after = place
    if after is None and entry.position is not None:
        return entry.position, None
    if after is None:
        reached = max((shown.position for shown in entries if shown.position is not None), default=reached)
    return reached, entry.event_id


def _entry(names: list[str], row: tuple[Any, ...]) -> TimelineEntry:
    values = dict(zip(names, row, strict=True))
    for name in ("title", "error_type", "error"):
        if values[name] is not None:
            values[name] = unescape_text(values[name])
    return TimelineEntry(**values)


# -- reading ----------------------------------------------------------------------------------------------------


def _one_more(limit: int) -> int:
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidInput(
            f"limit = {limit}; a page has 1 to {MAX_LIMIT:,} rows", field="limit", value=limit, limit=MAX_LIMIT
        )
    return limit + 1


def _by_creation(workflow: Workflow) -> tuple[Any, ...]:
    return workflow.created_at, workflow.workflow_id


def _by_end(execution: TaskExecution) -> tuple[Any, ...]:
    return execution.completed_at, execution.execution_id


def _workflows(connection: Connection, name: LiteralString, parameters: tuple[Any, ...]) -> list[Workflow]:
    return [cast("Workflow", from_row(Workflow, *row)) for row in _rows(connection, name, parameters)]


def _executions(connection: Connection, name: LiteralString, parameters: tuple[Any, ...]) -> list[TaskExecution]:
    return [cast("TaskExecution", from_row(TaskExecution, *row)) for row in _rows(connection, name, parameters)]


def _rows(
    connection: Connection, name: LiteralString, parameters: tuple[Any, ...]
) -> list[tuple[list[str], tuple[Any, ...]]]:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", name), parameters)
        names = [column.name for column in cursor.description or ()]
        return [(names, row) for row in cursor.fetchall()]
