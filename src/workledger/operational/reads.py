"""Reading the current state: what is running, what failed, what was said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, LiteralString, TypeVar, cast

import psycopg
from msgspec.structs import replace

from workledger.errors import NotFound, StoreCorrupted
from workledger.model.jsonvalue import decode
from workledger.model.payload import Blob, Reference, reference_of, unpack_blob
from workledger.model.records import (
    Conversation,
    Feedback,
    Message,
    TaskExecution,
    Worker,
    Workflow,
    from_row,
)
from workledger.operational.archived_values import archived_payloads
from workledger.operational.words import PROBE, words_of
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = [
    "conversation",
    "count_by_status",
    "execution",
    "executions_of",
    "existing_workflows",
    "failed_executions",
    "failed_workflows",
    "feedback_of",
    "fetch_messages",
    "heartbeat",
    "left_behind",
    "lost_work",
    "messages_from",
    "messages_of",
    "recorded_steps",
    "refuse_archived",
    "resolve",
    "resumable",
    "running_executions",
    "running_workflows",
    "steps_order",
    "watched_workers",
    "whole",
    "worker_is_alive",
    "workers",
    "workflow",
    "workflows",
]

Record = TypeVar("Record")

_MESSAGE_JSON = ("content", "tool_calls", "extra")
_MESSAGE_BODY = frozenset({"role", "tool_call_id", "name", *_MESSAGE_JSON})

#: Where a page begins: the time and id of the last row of the page above.
Cursor = tuple[datetime, str]


def workflow(connection: Connection, workflow_id: str) -> Workflow:
    """One workflow, large values included; raises `NotFound`."""
    found = _records(connection, Workflow, "get_workflow", (workflow_id,))
    if not found:
        raise _not_found(connection, "workflow", workflow_id)
    return whole(connection, found)[0]


def workflows(
    connection: Connection,
    *,
    status: str | None = None,
    name: str | None = None,
    workflow_type: str | None = None,
    tag: str | None = None,
    subject: str | None = None,
    since: datetime | None = None,
    search: str | None = None,
    before: Cursor | None = None,
    limit: int = 50,
) -> list[Workflow]:
    """Workflows newest first, filtered; inputs and outputs are left out.

    `search` finds words, or beginnings of words, in names and errors, and ids; see `words.words_of`.
    """
    filters, page = (status, name, workflow_type, tag, subject, since), (*(before or (None, None)), limit)
    if search is None or not search.strip():
        return _records(connection, Workflow, "list_workflows", (*filters, *page))
    words = words_of(connection, search)
    parameters = (*filters, words.query, words.ids, *page)
    found = _records(connection, Workflow, "list_newest_matching", (*parameters, PROBE))
    if len(found) == limit:
        return found
    return _records(connection, Workflow, "list_matching", parameters)


def running_workflows(connection: Connection, *, after: Cursor | None = None, limit: int = 100) -> list[Workflow]:
    """What is running now, oldest first; not what belongs to a worker whose lease has passed."""
    at, last_id = after or (None, None)
    return _records(connection, Workflow, "list_running", (at, last_id, limit))


def running_executions(connection: Connection, *, limit: int = 100) -> list[TaskExecution]:
    """Executions running now, oldest first; not those of a worker whose lease has passed."""
    return _records(connection, TaskExecution, "list_running_executions", (limit,))


def failed_workflows(
    connection: Connection, *, since: datetime | None = None, before: Cursor | None = None, limit: int = 50
) -> list[Workflow]:
    """Failed workflows, newest failure first."""
    at, last_id = before or (None, None)
    return _records(connection, Workflow, "list_failed_workflows", (since, at, last_id, limit))


def failed_executions(
    connection: Connection, *, since: datetime | None = None, before: Cursor | None = None, limit: int = 50
) -> list[TaskExecution]:
    """Failed executions, newest failure first."""
    at, last_id = before or (None, None)
    return _records(connection, TaskExecution, "list_failed_executions", (since, at, last_id, limit))


def executions_of(connection: Connection, workflow_id: str) -> list[TaskExecution]:
    """Every attempt of one workflow in the order they began, large values included."""
    return whole(connection, _records(connection, TaskExecution, "executions_of", (workflow_id,)))


def execution(connection: Connection, execution_id: str) -> TaskExecution:
    """One attempt, large values included; raises `NotFound`."""
    found = _records(connection, TaskExecution, "get_execution", (execution_id,))
    if not found:
        raise NotFound(f"no execution {execution_id!r}", entity_type="task", entity_id=execution_id)
    return whole(connection, found)[0]


def recorded_steps(connection: Connection, workflow_id: str) -> dict[str, TaskExecution]:
    """What a workflow's tasks did so far, by step key: the completed attempt of each, else the newest one."""
    found = whole(connection, _records(connection, TaskExecution, "completed_steps", (workflow_id,)))
    return {execution.step_key: execution for execution in found if execution.step_key is not None}


def conversation(connection: Connection, conversation_id: str) -> Conversation:
    """One conversation; raises `NotFound`."""
    found = _records(connection, Conversation, "get_conversation", (conversation_id,))
    if not found:
        raise _not_found(connection, "conversation", conversation_id)
    return found[0]


def messages_of(
    connection: Connection, conversation_id: str, *, after_seq: int = 0, removed: bool = False, limit: int = 10_000
) -> list[Message]:
    """The messages of a conversation, of every branch, in the order of their seq, as the objects they were recorded as.

    `branches.branch` reads one branch, which is what a model was shown.
    """
    return fetch_messages(connection, "messages_of", (conversation_id, after_seq, removed, limit))


def fetch_messages(connection: Connection, name: LiteralString, parameters: tuple[Any, ...]) -> list[Message]:
    """The messages that a statement of this package selects, large values included."""
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", name), parameters)
        names = [column.name for column in cursor.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return messages_from(connection, rows)


def messages_from(connection: Connection, rows: Sequence[dict[str, Any]]) -> list[Message]:
    """The messages that rows are, by column, with JSON as text; large values included."""
    parts = _message_parts(connection, rows)
    return [_message(row, part) for row, part in zip(rows, parts, strict=True)]


def _message_parts(connection: Connection, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The JSON columns of messages, decoded and resolved; a column that is NULL has no key."""
    parts = [{key: decode(row[key]) for key in _MESSAGE_JSON if row[key] is not None} for row in rows]
    resolved = iter(resolve(connection, [value for part in parts for value in part.values()]))
    return [{key: next(resolved) for key in part} for part in parts]


def _message(row: dict[str, Any], part: dict[str, Any]) -> Message:
    body = {"role": row["role"]} | {key: part[key] for key in ("content", "tool_calls") if key in part}
    body |= {key: row[key] for key in ("tool_call_id", "name") if row[key] is not None}
    body |= part["extra"]
    rest = {key: value for key, value in row.items() if key not in _MESSAGE_BODY}
    return from_row(Message, ["role", "body", *rest], (row["role"], body, *rest.values()))


def feedback_of(connection: Connection, workflow_id: str) -> list[Feedback]:
    """Every judgement of a workflow, oldest first."""
    return _records(connection, Feedback, "feedback_of", (workflow_id,))


def workers(connection: Connection, *, limit: int = 100) -> list[Worker]:
    """The workers, newest heartbeat first."""
    return _records(connection, Worker, "list_workers", (limit,))


def count_by_status(connection: Connection) -> dict[str, dict[str, int]]:
    """How many workflows and executions stand in each status: `{"workflow": {"running": 3}, "execution": {…}}`."""
    counts: dict[str, dict[str, int]] = {"workflow": {}, "execution": {}}
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", "count_by_status"))
        for what, status, count in cursor.fetchall():
            counts[what][status] = count
    return counts


def existing_workflows(connection: Connection, workflow_ids: Sequence[str]) -> dict[str, str | None]:
    """Which of these ids are taken, with the digest of the source they were imported from (or None)."""
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", "existing_workflows"), (list(workflow_ids),))
        return dict(cursor.fetchall())


def resolve(connection: Connection, values: Sequence[Any]) -> list[Any]:
    """The values, with references to stored payloads replaced by what they refer to (one query for all).

    Raises `StoreCorrupted` when a payload is missing or is not what its digest says.
    """
    references = {reference.digest for reference in map(reference_of, values) if reference is not None}
    if not references:
        return list(values)
    stored = _load(connection, references)
    return [value if (found := reference_of(value)) is None else _stored(stored, found) for value in values]


def _load(connection: Connection, digests: set[bytes]) -> dict[bytes, Any]:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", "load_payloads"), (sorted(digests),))
        rows = cursor.fetchall()
    blobs = {row[0]: Blob(digest=row[0], codec=row[1], size_bytes=row[2], body=row[3]) for row in rows}
    if missing := digests - blobs.keys():
        blobs |= archived_payloads(connection, sorted(missing))
    return {digest: unpack_blob(blob) for digest, blob in blobs.items()}


def _stored(stored: Mapping[bytes, Any], reference: Reference) -> Any:
    if reference.digest not in stored:
        raise StoreCorrupted(f"payload {reference.digest.hex()} is missing", location=reference.digest.hex())
    return stored[reference.digest]


def _resolved(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    flat = resolve(connection, [value for row in rows for value in row])
    width = len(rows[0]) if rows else 0
    return [tuple(flat[start : start + width]) for start in range(0, len(flat), width or 1)]


def whole(connection: Connection, records: list[Record]) -> list[Record]:
    """Records with inputs and outputs resolved."""
    pairs = [(cast("Any", record).input_data, cast("Any", record).output_data) for record in records]
    return [
        cast("Record", replace(cast("Any", record), input_data=given, output_data=returned))
        for record, (given, returned) in zip(records, _resolved(connection, pairs), strict=True)
    ]


def _records(connection: Connection, kind: type[Record], name: str, parameters: tuple[Any, ...]) -> list[Record]:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", name), parameters)
        names = [column.name for column in cursor.description or ()]
        return [from_row(kind, names, row) for row in cursor.fetchall()]


def refuse_archived(connection: Connection, what: str, entity_id: str) -> None:
    """Raise `NotFound` for a workflow or conversation that is archived, naming where; for who found nothing of it."""
    found = _archived(connection, what, entity_id)
    if found is not None:
        raise found


def _not_found(connection: Connection, what: str, entity_id: str) -> NotFound:
    """Say that something is not there or, when it is archived, where it is (`archive` and `url` of the error)."""
    found = _archived(connection, what, entity_id)
    return found or NotFound(f"no {what} {entity_id!r}", entity_type=what, entity_id=entity_id)


def _archived(connection: Connection, what: str, entity_id: str) -> NotFound | None:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", "archived_in"), (what, entity_id))
        row = cursor.fetchone()
    if row is None:
        return None
    archive, url = row
    return NotFound(
        f"{what} {entity_id!r} is archived in {url or archive}",
        entity_type=what,
        entity_id=entity_id,
        archive=archive,
        url=url,
    )


def lost_work(
    connection: Connection, *, with_overdue: bool = False
) -> list[tuple[str, str, str | None, str, int | None]]:
    """What workers left running that ended: `(what, id, workflow_id, worker_id, attempt)`, executions first.

    `with_overdue` adds what is run by workers whose lease has passed, whether or not they were declared lost.
    """
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", "lost_work"), (with_overdue,))
        return cast("list[tuple[str, str, str | None, str, int | None]]", cursor.fetchall())


def watched_workers(connection: Connection) -> list[tuple[str, str, float, bool]]:
    """The workers that have not ended: `(worker_id, heartbeat, lease_s, lease_is_over)`."""
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", "watched_workers"))
        return cast("list[tuple[str, str, float, bool]]", cursor.fetchall())


def left_behind(connection: Connection, workflow_id: str, *, attempt: int) -> list[str]:
    """The executions that attempts before this one left running; none when the workflow is not in it any more."""
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", "left_behind"), (workflow_id, attempt))
        return [row[0] for row in cursor.fetchall()]


def steps_order(connection: Connection, workflow_id: str) -> dict[str, tuple[int | None, int | None]]:
    """The log positions at which each execution of a workflow began and ended."""
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", "steps_order"), (workflow_id,))
        return {execution_id: (began, ended) for execution_id, began, ended in cursor.fetchall()}


def resumable(
    connection: Connection, names: Sequence[str], *, limit: int, with_overdue: bool = True
) -> list[tuple[str, str]]:
    """Workflows of these names that wait for a worker: `(workflow_id, name)`, oldest first."""
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", "resumable"), (list(names), limit, with_overdue))
        return cast("list[tuple[str, str]]", cursor.fetchall())


def worker_is_alive(connection: Connection, worker_id: str) -> bool:
    """Say whether a worker's lease runs, by the server's clock."""
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", "worker_is_alive"), (worker_id,))
        return cursor.fetchone() is not None


def heartbeat(connection: Connection, worker_id: str) -> str:
    """Say that a worker is alive; `alive`, `ended` when it has been declared stopped or lost, else `unknown`."""
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", "heartbeat"), (worker_id,))
        return cast("tuple[str]", cursor.fetchone())[0]
