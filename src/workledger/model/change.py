"""A change: one thing that happened, as the event that will say so.

Changes are made by plain functions and applied by `flows.record`. A change *is* its event: the state row is
what one SQL statement makes of it, live and again in a replay. `expected` names the statuses it may follow
(from `model.status`); None means that it is a fact already and is applied whatever stands there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from workledger.errors import InvalidInput
from workledger.model.checks import check_count, check_number
from workledger.model.fact import Change, Failure, Usage, check_time, make_change
from workledger.model.ids import check_id, check_name
from workledger.model.parts import failure_fields, split_message, usage_fields
from workledger.model.payload import Packer
from workledger.model.status import LEGAL_BEFORE, Kind, Severity

__all__ = ["Change", "Failure", "Usage", "check_time"]


def register_definition(
    *, name: str, version: str, steps: Sequence[str] = (), source_digest: str | None = None, at: datetime
) -> Change:
    """Register a workflow definition; its `total_steps` is the number of `steps`."""
    check_name("name", name)
    check_name("version", version, limit=100)
    payload = {
        "name": name,
        "version": version,
        "steps": [check_name("step", step) for step in steps],
        "source_digest": source_digest,
    }
    entity = ("definition", f"{name}@{version}"[:255])
    return make_change("definition.registered", entity=entity, workflow_id=None, at=at, payload=payload)


def start_workflow(
    *,
    workflow_id: str,
    name: str,
    at: datetime,
    packer: Packer,
    pending: bool = False,
    workflow_type: str | None = None,
    input: object = None,  # noqa: A002  the word users know
    metadata: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (),
    subject: str | None = None,
    conversation_id: str | None = None,
    parent_workflow_id: str | None = None,
    trace_id: str | None = None,
    definition_version: str | None = None,
    total_steps: int = 0,
    worker_id: str | None = None,
) -> Change:
    """Start a workflow (`workflow.started`), or create it `pending` for later (`workflow.created`)."""
    check_id("workflow_id", workflow_id)
    payload = {
        "name": check_name("name", name),
        "workflow_type": workflow_type and check_name("workflow_type", workflow_type, limit=100),
        "input": packer.value("input", input),
        "metadata": packer.json("metadata", dict(metadata)) if metadata else None,
        "tags": [check_name("tag", tag) for tag in tags] or None,
        "subject": subject and check_name("subject", subject),
        "conversation_id": conversation_id and check_id("conversation_id", conversation_id),
        "parent_workflow_id": parent_workflow_id and check_id("parent_workflow_id", parent_workflow_id),
        "trace_id": trace_id and check_name("trace_id", trace_id, limit=64),
        "definition_version": definition_version,
        "total_steps": check_count("total_steps", total_steps, bits=32) or None,
        "worker_id": worker_id,
    }
    return make_change(
        "workflow.created" if pending else "workflow.started",
        entity=("workflow", workflow_id),
        workflow_id=workflow_id,
        at=at,
        payload=payload,
        packer=packer,
    )


def progress_workflow(
    *,
    workflow_id: str,
    at: datetime,
    packer: Packer,
    attempt: int | None = None,
    state_data: Mapping[str, Any] | None = None,
    current_step: str | None = None,
    total_steps: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    conversation_id: str | None = None,
) -> Change:
    """Say how far a running workflow has come; what is None stays as it is, `metadata` is merged."""
    payload = {
        "state_data": None if state_data is None else packer.json("state_data", dict(state_data)),
        "current_step": current_step and check_name("current_step", current_step),
        "total_steps": None if total_steps is None else check_count("total_steps", total_steps, bits=32),
        "metadata": packer.json("metadata", dict(metadata)) if metadata else None,
        "conversation_id": conversation_id and check_id("conversation_id", conversation_id),
        "attempt": attempt,
    }
    return _workflow("workflow.progressed", workflow_id, at=at, payload=payload, packer=packer)


def complete_workflow(
    *,
    workflow_id: str,
    at: datetime,
    packer: Packer,
    output: object = None,
    execution_time_ms: float | None = None,
    attempt: int | None = None,
) -> Change:
    """A workflow came to its end and returned `output`."""
    payload = {
        "output": packer.value("output", output),
        "execution_time_ms": execution_time_ms,
        "attempt": attempt,
    }
    return _workflow("workflow.completed", workflow_id, at=at, payload=payload, packer=packer)


def fail_workflow(
    *,
    workflow_id: str,
    failure: Failure,
    at: datetime,
    packer: Packer,
    execution_time_ms: float | None = None,
    attempt: int | None = None,
) -> Change:
    """A workflow failed."""
    payload = {**failure_fields(failure, packer), "execution_time_ms": execution_time_ms, "attempt": attempt}
    return _workflow("workflow.failed", workflow_id, at=at, payload=payload, packer=packer, severity=Severity.ERROR)


def cancel_workflow(
    *,
    workflow_id: str,
    at: datetime,
    packer: Packer,
    reason: str | None = None,
    execution_time_ms: float | None = None,
    attempt: int | None = None,
) -> Change:
    """A workflow stopped because it was asked to."""
    payload = {"error": packer.text(reason), "execution_time_ms": execution_time_ms, "attempt": attempt}
    return _workflow(
        "workflow.cancelled", workflow_id, at=at, payload=payload, packer=packer, severity=Severity.WARNING
    )


def request_cancel(*, workflow_id: str, at: datetime, packer: Packer, reason: str | None = None) -> Change:
    """Ask a workflow to stop; it sees this at its next task boundary."""
    payload = {"reason": packer.text(reason)}
    return _workflow("workflow.cancel_requested", workflow_id, at=at, payload=payload, packer=packer)


def resume_workflow(*, workflow_id: str, attempt: int, at: datetime, worker_id: str | None = None) -> Change:
    """Continue a workflow that is not completed. `attempt` is the one that is being taken over from."""
    payload = {"attempt": attempt, "worker_id": worker_id}
    return _workflow("workflow.resumed", workflow_id, at=at, payload=payload, packer=None)


def start_execution(
    *,
    execution_id: str,
    workflow_id: str,
    task_name: str,
    at: datetime,
    packer: Packer,
    kind: Kind = Kind.TASK,
    input: object = None,  # noqa: A002  the word users know
    retry_count: int = 0,
    parent_execution_id: str | None = None,
    step_key: str | None = None,
    input_digest: str | None = None,
    worker_id: str | None = None,
    model: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    attempt: int | None = None,
) -> Change:
    """An attempt at a task begins; its row exists from now on, whatever becomes of it."""
    check_id("execution_id", execution_id)
    payload = {
        "task_name": check_name("task_name", task_name),
        "kind": str(kind),
        "input": packer.value("input", input),
        "retry_count": check_count("retry_count", retry_count, bits=32) or None,
        "parent_execution_id": parent_execution_id,
        "step_key": step_key and check_name("step_key", step_key),
        "input_digest": input_digest,
        "worker_id": worker_id,
        "model": packer.text(model),
        "metadata": packer.json("metadata", dict(metadata)) if metadata else None,
        "attempt": attempt,
    }
    return _task("task.started", execution_id, workflow_id, at=at, payload=payload, packer=packer)


def complete_execution(
    *,
    execution_id: str,
    workflow_id: str,
    at: datetime,
    packer: Packer,
    output: object = None,
    execution_time_ms: float | None = None,
    usage: Usage | None = None,
) -> Change:
    """An attempt succeeded with `output`."""
    payload = {
        "output": packer.value("output", output),
        "execution_time_ms": execution_time_ms,
        **usage_fields(usage, packer, at),
    }
    return _task("task.completed", execution_id, workflow_id, at=at, payload=payload, packer=packer)


def fail_execution(
    *,
    execution_id: str,
    workflow_id: str,
    failure: Failure,
    at: datetime,
    packer: Packer,
    execution_time_ms: float | None = None,
    usage: Usage | None = None,
) -> Change:
    """An attempt failed."""
    payload = {
        **failure_fields(failure, packer),
        "execution_time_ms": execution_time_ms,
        **usage_fields(usage, packer, at),
    }
    return _task(
        "task.failed", execution_id, workflow_id, at=at, payload=payload, packer=packer, severity=Severity.ERROR
    )


def cancel_execution(
    *,
    execution_id: str,
    workflow_id: str,
    at: datetime,
    packer: Packer,
    reason: str | None = None,
    execution_time_ms: float | None = None,
) -> Change:
    """An attempt was given up because its workflow was asked to stop."""
    payload = {"error": packer.text(reason), "execution_time_ms": execution_time_ms}
    return _task(
        "task.cancelled",
        execution_id,
        workflow_id,
        at=at,
        payload=payload,
        packer=packer,
        severity=Severity.WARNING,
    )


def start_conversation(
    *,
    conversation_id: str,
    at: datetime,
    packer: Packer,
    workflow_id: str | None = None,
    title: str | None = None,
    subject: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Change:
    """A conversation begins."""
    check_id("conversation_id", conversation_id)
    payload = {
        "title": packer.text(title),
        "subject": subject and check_name("subject", subject),
        "metadata": packer.json("metadata", dict(metadata)) if metadata else None,
    }
    return make_change(
        "conversation.started",
        entity=("conversation", conversation_id),
        workflow_id=workflow_id,
        at=at,
        payload=payload,
        packer=packer,
    )


def add_message(
    *,
    message_id: str,
    conversation_id: str,
    message: Mapping[str, Any],
    at: datetime,
    packer: Packer,
    workflow_id: str | None = None,
    execution_id: str | None = None,
    parent_seq: int | None = None,
    usage: Usage | None = None,
) -> Change:
    """Add a chat-completion message object; every key of it is kept, whether or not it has a column."""
    check_id("message_id", message_id)
    check_id("conversation_id", conversation_id)
    body, extra = split_message(message)
    payload = {
        "message_id": message_id,
        "message": {
            key: packer.value(f"message.{key}", value) if key in {"content", "tool_calls"} else value
            for key, value in body.items()
        },
        "extra": packer.json("extra", extra) if extra else None,
        "execution_id": execution_id and check_id("execution_id", execution_id),
        "parent_seq": None if parent_seq is None else check_count("parent_seq", parent_seq),
        **usage_fields(usage, packer, at),
    }
    return make_change(
        "message.added",
        entity=("conversation", conversation_id),
        workflow_id=workflow_id,
        at=at,
        payload=payload,
        packer=packer,
    )


def remove_messages(
    *, conversation_id: str, seqs: Sequence[int], at: datetime, workflow_id: str | None = None
) -> Change:
    """Take messages out of a conversation (pop, clear); they stay in the log and are marked in the state."""
    return make_change(
        "message.removed",
        entity=("conversation", check_id("conversation_id", conversation_id)),
        workflow_id=workflow_id,
        at=at,
        payload={"seqs": list(seqs)},
    )


def record_feedback(
    *,
    feedback_id: str,
    name: str,
    at: datetime,
    packer: Packer,
    workflow_id: str | None = None,
    execution_id: str | None = None,
    message_id: str | None = None,
    score: float | None = None,
    label: str | None = None,
    comment: str | None = None,
    source: str | None = None,
) -> Change:
    """Judge a workflow, an execution or a message by a score, a label or a comment."""
    check_id("feedback_id", feedback_id)
    if score is None and label is None and comment is None:
        raise InvalidInput(
            f"feedback {name!r} says nothing; give a score, a label or a comment",
            field="score",
            value=None,
            limit="one of score, label, comment",
        )
    payload = {
        "feedback_id": feedback_id,
        "execution_id": execution_id and check_id("execution_id", execution_id),
        "message_id": message_id and check_id("message_id", message_id),
        "name": check_name("name", name),
        "score": None if score is None else float(check_number("score", score)),
        "label": packer.text(label),
        "comment": packer.text(comment),
        "source": packer.text(source),
    }
    entity = (
        ("workflow", workflow_id)
        if workflow_id
        else ("task", check_id("execution_id", execution_id))
        if execution_id
        else ("message", check_id("message_id", message_id))
    )
    return make_change(
        "feedback.recorded", entity=entity, workflow_id=workflow_id, at=at, payload=payload, packer=packer
    )


_RESERVED = frozenset({*LEGAL_BEFORE, "definition.registered", "conversation.started", "message.added"}) | {
    "message.removed",
    "feedback.recorded",
    "log.archived",
    "worker.started",
    "worker.stopped",
    "worker.lost",
}


def record_event(
    *,
    event_type: str,
    entity_type: str,
    entity_id: str,
    at: datetime,
    packer: Packer,
    workflow_id: str | None = None,
    payload: Mapping[str, Any] | None = None,
    severity: Severity = Severity.INFO,
    event_id: str | None = None,
) -> Change:
    """An event of the application's own. The types that move state are not open to it."""
    check_name("event_type", event_type, limit=100)
    if event_type in _RESERVED:
        raise InvalidInput(
            f"event_type {event_type!r} moves state and is recorded by its own call, not as a plain event",
            field="event_type",
            value=event_type,
            limit="not one of the ledger's own types",
        )
    return make_change(
        event_type,
        entity=(check_name("entity_type", entity_type, limit=100), check_id("entity_id", entity_id)),
        workflow_id=workflow_id,
        at=at,
        payload=packer.fields("payload", payload or {}),
        packer=packer,
        severity=Severity(severity),
        event_id=event_id,
    )


def change_worker(
    event_type: str,
    *,
    worker_id: str,
    at: datetime,
    hostname: str | None = None,
    pid: int | None = None,
    version: str | None = None,
    lease_s: float | None = None,
) -> Change:
    """A worker started, stopped or was lost (`worker.started`, `worker.stopped`, `worker.lost`)."""
    payload = {"hostname": hostname, "pid": pid, "version": version, "lease_s": lease_s}
    entity = ("system", check_id("worker_id", worker_id))
    severity = Severity.ERROR if event_type == "worker.lost" else Severity.INFO
    return make_change(event_type, entity=entity, workflow_id=None, at=at, payload=payload, severity=severity)


def _workflow(event_type: str, workflow_id: str, **rest: Any) -> Change:
    check_id("workflow_id", workflow_id)
    return make_change(event_type, entity=("workflow", workflow_id), workflow_id=workflow_id, **rest)


def _task(event_type: str, execution_id: str, workflow_id: str, **rest: Any) -> Change:
    return make_change(
        event_type, entity=("task", check_id("execution_id", execution_id)), workflow_id=workflow_id, **rest
    )
