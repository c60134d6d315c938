"""Archived workflows as they were when they left the state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
import psycopg

from workledger.errors import NotFound
from workledger.model.archived import ArchiveFile
from workledger.model.jsonvalue import decode
from workledger.model.records import Feedback, Message, TaskExecution, Workflow, from_row
from workledger.operational import reads
from workledger.operational.branches import branch
from workledger.postgres.archive_access import access_for
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = ["ArchivedWorkflow", "workflow"]

_JSON: Final = frozenset({"state_data", "input_data", "output_data", "metadata", "tags"})


class ArchivedWorkflow(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow and what left with it; its events are where events always are."""

    workflow: Workflow
    executions: list[TaskExecution]
    messages: list[Message]
    feedback: list[Feedback]
    archived_at: datetime
    url: str


def workflow(connection: Connection, workflow_id: str) -> ArchivedWorkflow:
    """A workflow out of the archive, large values included; raises `NotFound` when it is not archived."""
    found = _fetch(connection, "files_of_workflow", workflow_id)
    files = {row[1]: ArchiveFile(*row[:-1]) for row in found}
    if "workflows" not in files:
        raise NotFound(f"no archived workflow {workflow_id!r}", entity_type="workflow", entity_id=workflow_id)
    rows = _Rows(connection, files)
    (one,) = reads.whole(connection, _records(Workflow, rows.of("workflows", "workflow_id", [workflow_id])))
    executions = _records(TaskExecution, rows.of("task_executions", "workflow_id", [workflow_id]))
    executions = sorted(executions, key=lambda execution: (execution.created_at, execution.execution_id))
    messages = _messages(connection, rows, one.conversation_id)
    return ArchivedWorkflow(
        workflow=one,
        executions=reads.whole(connection, executions),
        messages=messages,
        feedback=_feedback(
            rows.of("feedback", "workflow_id", [workflow_id]),
            rows.of("feedback", "execution_id", [execution.execution_id for execution in executions]),
            rows.of("feedback", "message_id", [message.message_id for message in messages]),
        ),
        archived_at=found[0][-1],
        url=files["workflows"].url,
    )


class _Rows:
    """The rows of the files that a workflow left for."""

    def __init__(self, connection: Connection, files: Mapping[str, ArchiveFile]) -> None:
        self._connection = connection
        self._files = files

    def of(self, table: str, column: str, values: list[str]) -> list[dict[str, Any]]:
        file = self._files.get(table)
        return [] if file is None or not values else access_for(self._connection, file).rows(file, column, values)


def _messages(connection: Connection, rows: _Rows, conversation_id: str | None) -> list[Message]:
    if conversation_id is None:
        return []
    found = rows.of("messages", "conversation_id", [conversation_id])
    if not found:
        return branch(connection, conversation_id)  # it goes on, or went with another workflow
    standing = [row for row in _newest_branch(found) if row["removed_at"] is None]
    for row in standing:
        row["cost_usd"] = None if row["cost_usd"] is None else Decimal(row["cost_usd"])
    return reads.messages_from(connection, sorted(standing, key=lambda row: row["seq"]))


def _newest_branch(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows on the way from the last message of all to the first."""
    by_seq = {row["seq"]: row for row in rows}
    seq = max(by_seq)
    while (row := by_seq.get(seq)) is not None:
        yield row
        seq = seq - 1 if row["parent_seq"] is None else row["parent_seq"]


def _feedback(*judged: Iterable[dict[str, Any]]) -> list[Feedback]:
    rows = {row["feedback_id"]: row for part in judged for row in part}
    return sorted(_records(Feedback, rows.values()), key=lambda one: (one.created_at, one.feedback_id))


def _records(kind: type[Any], rows: Iterable[dict[str, Any]]) -> list[Any]:
    return [from_row(kind, list(row), tuple(_value(name, value) for name, value in row.items())) for row in rows]


def _value(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _JSON:
        return decode(value)
    return Decimal(value) if name == "cost_usd" else value


def _fetch(connection: Connection, name: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", name), parameters, binary=True)
        return cursor.fetchall()
