"""The line of a finished execution: its ending joined to its beginning, values passed through as they are."""

from __future__ import annotations

from typing import Final

import msgspec

from workledger.model.status import Kind
from workledger.training.log_lines import LogEvent

__all__ = ["FINISHED", "Started", "execution_line", "read_started"]

#: The status that each of these event types gives an execution.
FINISHED: Final = {"task.completed": "completed", "task.failed": "failed", "task.cancelled": "cancelled"}

NULL: Final = msgspec.Raw(b"null")
_TASK: Final = str(Kind.TASK)
_ZERO: Final = msgspec.Raw(b"0")
_EMPTY: Final = msgspec.Raw(b"{}")


class _StartPayload(msgspec.Struct, frozen=True, gc=False):
    task_name: msgspec.Raw = NULL
    kind: str = Kind.TASK
    input: msgspec.Raw = NULL
    retry_count: msgspec.Raw = _ZERO
    parent_execution_id: msgspec.Raw = NULL
    step_key: msgspec.Raw = NULL
    input_digest: msgspec.Raw = NULL
    worker_id: msgspec.Raw = NULL
    model: msgspec.Raw = NULL
    metadata: msgspec.Raw = _EMPTY


class _EndPayload(msgspec.Struct, frozen=True, gc=False):
    output: msgspec.Raw = NULL
    error: msgspec.Raw = NULL
    error_type: msgspec.Raw = NULL
    error_traceback: msgspec.Raw = NULL
    execution_time_ms: msgspec.Raw = NULL
    input_tokens: msgspec.Raw = NULL
    output_tokens: msgspec.Raw = NULL
    cost_usd: msgspec.Raw = NULL
    model: msgspec.Raw = NULL


class _Line(msgspec.Struct, frozen=True, gc=False):
    position: int
    started_position: int | None
    execution_id: str | None
    workflow_id: str | None
    conversation_id: msgspec.Raw
    task_name: msgspec.Raw
    kind: str
    status: str
    input_data: msgspec.Raw
    output_data: msgspec.Raw
    error: msgspec.Raw
    error_type: msgspec.Raw
    error_traceback: msgspec.Raw
    retry_count: msgspec.Raw
    execution_time_ms: msgspec.Raw
    created_at: str | None
    started_at: str | None
    completed_at: str
    parent_execution_id: msgspec.Raw
    step_key: msgspec.Raw
    input_digest: msgspec.Raw
    worker_id: msgspec.Raw
    input_tokens: msgspec.Raw
    output_tokens: msgspec.Raw
    cost_usd: msgspec.Raw
    model: msgspec.Raw
    metadata: msgspec.Raw


_decode_start = msgspec.json.Decoder(_StartPayload).decode
_decode_end = msgspec.json.Decoder(_EndPayload).decode
_encode = msgspec.json.Encoder().encode


class Started(msgspec.Struct, frozen=True, gc=False):
    """The beginning of an execution, kept until its ending comes by."""

    position: int | None
    created_at: str | None
    payload: _StartPayload
    #: Whether it is one of its workflow's steps: a task that no other execution called.
    is_step: bool
    #: About how much memory it takes.
    size_bytes: int

    @property
    def kind(self) -> str:
        """What the execution is."""
        return self.payload.kind

    @property
    def task_name(self) -> msgspec.Raw:
        """The task's name, as JSON."""
        return self.payload.task_name


def _started(position: int | None, created_at: str | None, payload: _StartPayload) -> Started:
    is_step = payload.kind == _TASK and payload.parent_execution_id == NULL
    return Started(position, created_at, payload, is_step, 400 + len(payload.input) + len(payload.metadata))


#: What stands for a beginning that the log does not have.
UNKNOWN: Final = _started(None, None, _StartPayload())


def read_started(event: LogEvent) -> Started:
    """Take in a `task.started` event. A payload that is none of ours counts as one that says nothing."""
    try:
        payload = _decode_start(event.payload)
    except msgspec.MsgspecError:
        payload = UNKNOWN.payload
    return _started(event.position, event.created_at, payload)


def execution_line(ended: LogEvent, started: Started, *, conversation_id: msgspec.Raw = NULL) -> bytes:
    """Give the line of an execution that `ended` and had `started`: the row of `task_executions` at that position."""
    try:
        end = _decode_end(ended.payload)
    except msgspec.MsgspecError:
        end = _EndPayload()
    start = started.payload
    # By position, in the order of the columns: naming 27 of them would take a third of the time.
    return _encode(
        _Line(
            ended.position,
            started.position,
            ended.entity_id,
            ended.workflow_id,
            conversation_id,
            start.task_name,
            start.kind,
            FINISHED[ended.event_type],
            start.input,
            end.output,
            end.error,
            end.error_type,
            end.error_traceback,
            start.retry_count,
            end.execution_time_ms,
            started.created_at,
            started.created_at,
            ended.created_at,
            start.parent_execution_id,
            start.step_key,
            start.input_digest,
            start.worker_id,
            end.input_tokens,
            end.output_tokens,
            end.cost_usd,
            start.model if end.model == NULL else end.model,
            start.metadata,
        )
    )
