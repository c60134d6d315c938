"""Whole finished workflows, recorded many at a time: the state rows are written once, in their final form.

What is written is what the single statements of `apply` would have left, row for row; a test holds the two
against each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import psycopg

from workledger.model.change import Change
from workledger.operational.apply import statement, store_payloads
from workledger.postgres.connection import Connection

__all__ = ["apply_finished", "are_finished"]

_STEPS: Final = (
    "bulk_workflows",
    "bulk_executions",
    "bulk_conversations",
    "bulk_messages",
    "bulk_feedback",
    "bulk_events",
)
_ENDS: Final = frozenset({"workflow.completed", "workflow.failed", "workflow.cancelled"})
_FINISHES: Final = frozenset({"task.completed", "task.failed", "task.cancelled"})
_OTHERS: Final = frozenset({"conversation.started", "message.added", "feedback.recorded"})
#: Below this, the few round trips of the single statements are cheaper.
_WORTH_IT: Final = 100


def are_finished(changes: Sequence[Change]) -> bool:
    """Say whether a batch is nothing but whole workflows: each begins and ends in it, with all it has."""
    if len(changes) < _WORTH_IT:
        return False
    counts = Counter((change.event_type, change.entity_id) for change in changes)
    if any(count > 1 for (event_type, _), count in counts.items() if event_type not in _OTHERS):
        return False
    begun = {entity_id for event_type, entity_id in counts if event_type == "workflow.started"}
    ended = {entity_id for event_type, entity_id in counts if event_type in _ENDS}
    started = {entity_id for event_type, entity_id in counts if event_type == "task.started"}
    finished = {entity_id for event_type, entity_id in counts if event_type in _FINISHES}
    talked = {entity_id for event_type, entity_id in counts if event_type == "conversation.started"}
    return (
        begun == ended
        and started == finished
        and sum(event_type in _ENDS | _FINISHES for event_type, _ in counts) == len(ended) + len(finished)
        and all(_belongs(change, begun, talked) for change in changes)
    )


def _belongs(change: Change, begun: set[str], talked: set[str]) -> bool:
    family = change.event_type.partition(".")[0]
    if change.event_type == "message.added":
        return change.entity_id in talked
    if family in {"workflow", "task"}:
        known = change.event_type in _ENDS | _FINISHES | {"workflow.started", "task.started"}
        return known and change.workflow_id in begun
    return change.event_type in _OTHERS


def apply_finished(connection: Connection, changes: Sequence[Change]) -> None:
    """Record whole finished workflows in the transaction at hand; a taken id is the driver's unique violation."""
    with psycopg.RawCursor(connection) as cursor:
        cursor.execute(statement("bulk_stage"))
        cursor.execute(statement("bulk_plan"))
        store_payloads(connection, [blob for change in changes for blob in change.blobs])
        with cursor.copy(statement("bulk_copy")) as stage:
            stage.write(b"".join(map(_line, range(len(changes)), changes)))
        for name in _STEPS:
            cursor.execute(statement(name), prepare=False)


def _line(n: int, change: Change) -> bytes:
    """One change in COPY's text format (PostgreSQL manual, COPY: backslash, tab and newline are escaped)."""
    workflow_id = r"\N" if change.workflow_id is None else _escaped(change.workflow_id)
    head = (
        f"{n}\t{change.event_id}\t{_escaped(change.event_type)}\t{_escaped(change.entity_type)}"
        f"\t{_escaped(change.entity_id)}\t{workflow_id}\t{change.severity}\t{change.created_at.isoformat()}\t"
    )
    # JSON from orjson has no raw control characters; only its backslashes need doubling.
    return head.encode() + change.payload.replace(b"\\", b"\\\\") + b"\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\") if "\\" in text else text
