"""Applying changes: each becomes its state row and its event in one statement, many in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, LiteralString

import msgspec
import orjson
import psycopg
from psycopg.rows import tuple_row

from workledger.errors import Conflict, InvalidTransition, NotFound, Superseded, WorkflowCancelled, WorkledgerError
from workledger.model.change import Change
from workledger.model.ids import month_of
from workledger.model.payload import Blob
from workledger.postgres.blocking import run_prepared
from workledger.postgres.connection import Connection
from workledger.postgres.statements import load

__all__ = [
    "Outcome",
    "apply_alone",
    "apply_in_transaction",
    "apply_one",
    "is_missing_partition",
    "make_partitions",
    "statement",
    "statement_name",
    "store_payloads",
]

#: The statement that applies each type of event; other types are the application's own.
_STATEMENT: Final = {
    "definition.registered": "register_definition",
    "workflow.created": "start_workflow",
    "workflow.started": "start_workflow",
    "workflow.progressed": "change_workflow",
    "workflow.cancel_requested": "change_workflow",
    "workflow.completed": "change_workflow",
    "workflow.failed": "change_workflow",
    "workflow.cancelled": "change_workflow",
    "workflow.resumed": "change_workflow",
    "workflow.archived": "archive_workflow",
    "task.started": "start_execution",
    "task.completed": "finish_execution",
    "task.failed": "finish_execution",
    "task.cancelled": "finish_execution",
    "conversation.started": "start_conversation",
    "message.added": "add_message",
    "message.removed": "remove_messages",
    "feedback.recorded": "record_feedback",
    "worker.started": "change_worker",
    "worker.stopped": "change_worker",
    "worker.lost": "change_worker",
}
#: The error types by which somebody else ended what a worker was running.
_TAKEN: Final = frozenset({"WorkerLost", "Superseded"})
#: Statements that take several changes of one entity at once, in order.
_SEVERAL: Final = frozenset({"add_message", "record_event", "record_feedback"})
#: The statement that removes what changes of other entities have made, and so comes after all that came before it.
_AFTER_ALL: Final = "archive_workflow"


class Outcome(msgspec.Struct, frozen=True):
    """What became of a change: written now, or a repetition of what was written before (`applied=False`)."""

    applied: bool
    seq: int | None = None


def statement_name(event_type: str) -> str:
    """The name of the statement that applies an event type."""
    return _STATEMENT.get(event_type, "record_event")


def statement(name: str) -> LiteralString:
    """The text of one of this package's statements."""
    return load("workledger.operational", name)


def apply_one(connection: Connection, change: Change) -> Outcome:
    """Apply one change in the transaction at hand (in autocommit: in its own), in one round trip.

    Raises `InvalidTransition`, `Superseded`, `Conflict` or `NotFound` when the guard refuses it, and the
    driver's errors as they are: the caller decides what can be retried.
    """
    if change.blobs:
        return _only(apply_in_transaction(connection, [change]))
    with psycopg.RawCursor(connection, row_factory=tuple_row) as cursor:
        cursor.execute(statement(statement_name(change.event_type)), (_parameter([change]),))
        row = cursor.fetchone()
    if row is not None:
        return Outcome(applied=True, seq=row[1])
    return _only(_explain(connection, [change]))


def apply_alone(connection: Connection, change: Change) -> Outcome:
    """The same on a connection that nobody else uses, straight through libpq: a third less client time.

    Only for an autocommit connection in the hands of one thread. The call cannot be interrupted by a signal
    until the server has answered.
    """
    if change.blobs:
        return apply_one(connection, change)
    name = statement_name(change.event_type)
    result = run_prepared(connection, f"workledger_{name}", statement(name), [_parameter([change]).encode()])
    if result.status != psycopg.pq.ExecStatus.TUPLES_OK:
        raise psycopg.errors.error_from_result(result, "utf-8")
    if result.ntuples:
        seq = result.get_value(0, 1)
        return Outcome(applied=True, seq=None if seq is None else int(seq))
    return _only(_explain(connection, [change]))


def apply_in_transaction(connection: Connection, changes: Sequence[Change]) -> list[Outcome | WorkledgerError]:
    """Apply many changes in one transaction, pipelined; a refused change is an error in its place.

    Changes of one workflow or entity keep their order. Raises the driver's errors as they are; then nothing of
    the batch is written.
    """
    written: dict[str, int | None] = {}
    with connection.transaction(), connection.pipeline():
        cursors = [store_payloads(connection, [blob for change in changes for blob in change.blobs])]
        for name, group in plan(changes):
            cursor = psycopg.RawCursor(connection, row_factory=tuple_row)
            cursor.execute(statement(name), (_parameter(group),))
            cursors.append(cursor)
        for cursor in filter(None, cursors[1:]):
            written.update((str(event_id), seq) for event_id, seq in cursor.fetchall())
    refused = [change for change in changes if change.event_id not in written]
    reasons = iter(_explain(connection, refused) if refused else ())
    return [
        Outcome(applied=True, seq=written[change.event_id]) if change.event_id in written else next(reasons)
        for change in changes
    ]


def plan(changes: Sequence[Change]) -> list[tuple[str, list[Change]]]:
    """Divide changes into statements, to be run in this order.

    Two changes of one workflow (or entity) never share a statement, unless it is one that takes several: the
    parts of a statement do not see each other's rows. Within a statement changes are ordered by workflow, so
    that every process locks rows in the same order. Archiving takes away what several entities have made, and comes
    after all of it.
    """
    highest = -1
    last: dict[str, tuple[int, str]] = {}
    rounds: dict[tuple[int, str], list[Change]] = {}
    for change in changes:
        name = statement_name(change.event_type)
        keys = {change.workflow_id or "", change.entity_id} - {""}
        turn = highest + 1 if name == _AFTER_ALL else 0
        for key in keys:
            if key in last:
                before, previous = last[key]
                turn = max(turn, before if previous == name and name in _SEVERAL else before + 1)
        if name != _AFTER_ALL:
            highest = max(highest, turn)
        for key in keys:
            last[key] = (turn, name)
        rounds.setdefault((turn, name), []).append(change)
    ordered = sorted(rounds.items(), key=lambda item: item[0])
    return [
        (name, group if name in _SEVERAL else sorted(group, key=lambda change: change.workflow_id or change.entity_id))
        for (_, name), group in ordered
    ]


def _parameter(changes: Iterable[Change]) -> str:
    return orjson.dumps([change.row(n) for n, change in enumerate(changes)]).decode()


def store_payloads(connection: Connection, blobs: Sequence[Blob]) -> psycopg.RawCursor[Any] | None:
    """Store large values in the transaction at hand; None when there are none."""
    if not blobs:
        return None
    distinct = sorted({blob.digest: blob for blob in blobs}.values(), key=lambda blob: blob.digest)
    cursor = psycopg.RawCursor(connection, row_factory=tuple_row)
    cursor.execute(
        statement("store_payloads"),
        (
            [blob.digest for blob in distinct],
            [blob.codec for blob in distinct],
            [blob.size_bytes for blob in distinct],
            [blob.body for blob in distinct],
        ),
    )
    return cursor


def make_partitions(connection: Connection, changes: Iterable[Change]) -> None:
    """Make the partitions of `events` that these changes fall into (old imports, a skewed clock)."""
    for at in sorted({month_of(change.event_id) for change in changes}):
        connection.execute("SELECT ensure_event_partition(%s)", (at,))


def is_missing_partition(error: psycopg.Error) -> bool:
    """Say whether an insert failed only because the partition of its time is not there yet."""
    return isinstance(error, psycopg.errors.CheckViolation) and "no partition of relation" in str(error)


def _only(outcomes: list[Outcome | WorkledgerError]) -> Outcome:
    (outcome,) = outcomes
    if isinstance(outcome, WorkledgerError):
        raise outcome
    return outcome


class _Refusal(msgspec.Struct, frozen=True):
    n: int
    same_event: bool | None
    seq: int | None
    workflow_status: str | None
    attempt: int | None
    cancel_requested: bool | None
    workflow_error_type: str | None
    execution_status: str | None
    error_type: str | None
    has_conversation: bool
    same_definition: bool | None
    archive: str | None


def _explain(connection: Connection, changes: Sequence[Change]) -> list[Outcome | WorkledgerError]:
    with psycopg.RawCursor(connection, row_factory=tuple_row) as cursor:
        cursor.execute(statement("explain_refusals"), (_parameter(changes),))
        refusals = [_Refusal(*row) for row in cursor.fetchall()]
    return [_judge(change, refusal) for change, refusal in zip(changes, refusals, strict=True)]


def _judge(change: Change, found: _Refusal) -> Outcome | WorkledgerError:
    """Word what `explain_refusals` found: a repetition is an answer, the rest are errors."""
    if found.same_event:
        return Outcome(applied=False, seq=found.seq)
    if found.same_event is False:
        return Conflict(
            f"event {change.event_id} is already recorded with different content", entity_id=change.event_id
        )
    family = change.event_type.partition(".")[0]
    match family:
        case "workflow":
            return _judge_workflow(change, found)
        case "task":
            return _judge_task(change, found)
        case "definition":
            return _judge_definition(change, same=bool(found.same_definition))
        case "worker":
            return Outcome(applied=False)
        case "message" if not found.has_conversation:
            return _unknown("conversation", change.entity_id, found)
        case "conversation" if found.archive is not None:
            return _is_archived("conversation", change.entity_id, found.archive)
        case _:
            return Conflict(
                f"{change.event_type} for {change.entity_type} {change.entity_id!r} is already recorded "
                "with different content",
                entity_id=change.entity_id,
            )


def _judge_definition(change: Change, *, same: bool) -> Outcome | WorkledgerError:
    if same:
        return Outcome(applied=False)
    return Conflict(
        f"definition {change.entity_id} is already registered with other steps or source; give it a new version",
        entity_id=change.entity_id,
    )


def _judge_workflow(change: Change, found: _Refusal) -> WorkledgerError:
    is_start = change.event_type in {"workflow.created", "workflow.started"}
    if found.archive is not None and is_start:
        return _is_archived("workflow", change.entity_id, found.archive)
    if found.workflow_status is None:
        return _unknown("workflow", change.workflow_id, found)
    if is_start:
        return Conflict(
            f"workflow {change.entity_id!r} already exists and is {found.workflow_status}", entity_id=change.entity_id
        )
    lost = found.workflow_status == "failed" and found.workflow_error_type in _TAKEN
    return _out_of_turn(change, found, what="workflow", current=found.workflow_status, lost=lost)


def _judge_task(change: Change, found: _Refusal) -> WorkledgerError:
    if change.event_type != "task.started":
        if found.execution_status is None:
            return NotFound(f"no execution {change.entity_id!r}", entity_type="task", entity_id=change.entity_id)
        lost = found.error_type in _TAKEN
        return _out_of_turn(change, found, what="execution", current=found.execution_status, lost=lost)
    if found.execution_status is not None:
        return Conflict(
            f"execution {change.entity_id!r} already exists and is {found.execution_status}", entity_id=change.entity_id
        )
    if found.workflow_status is None:
        return _unknown("workflow", change.workflow_id, found)
    if found.cancel_requested and found.workflow_status == "running":
        return WorkflowCancelled(
            f"workflow {change.workflow_id!r} was asked to stop; no further task is started",
            workflow_id=change.workflow_id,
        )
    lost = found.workflow_status == "failed" and found.workflow_error_type in _TAKEN
    return _out_of_turn(change, found, what="workflow", current=found.workflow_status, lost=lost)


def _unknown(what: str, entity_id: str | None, found: _Refusal) -> NotFound:
    where = "" if found.archive is None else f": it is archived ({found.archive})"
    return NotFound(f"no {what} {entity_id!r}{where}", entity_type=what, entity_id=entity_id)


def _is_archived(what: str, entity_id: str, archive: str) -> Conflict:
    return Conflict(f"{what} {entity_id!r} was there and is archived ({archive}); use another id", entity_id=entity_id)


def _out_of_turn(change: Change, found: _Refusal, *, what: str, current: str, lost: bool = False) -> InvalidTransition:
    wanted = change.event_type
    attempt = orjson.loads(change.payload).get("attempt")
    details = {"entity_id": change.entity_id, "current": current, "wanted": wanted}
    if lost or (attempt is not None and attempt != found.attempt):
        return Superseded(
            f"{wanted} refused: {what} of {change.entity_id!r} was taken over while this worker was away "
            f"(it is {current} now, in attempt {found.attempt})",
            **details,
        )
    if current in (change.expected or ()):
        return InvalidTransition(
            f"{wanted} refused: {what} of {change.entity_id!r} was not {current} yet when it was tried", **details
        )
    legal = " or ".join(change.expected or ("nothing",))
    return InvalidTransition(f"{wanted} refused: {what} of {change.entity_id!r} is {current}, not {legal}", **details)
