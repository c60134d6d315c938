"""The line of a finished workflow: its own events folded, in the order of the log, as SQL folds them into its row.

`operational/queries/start_workflow.sql`, `change_workflow.sql`, `start_execution.sql` and `finish_execution.sql` say
what each event does to the row; a test holds this file to them.
"""

from __future__ import annotations

from typing import Final

import msgspec

from workledger.training.executions import NULL, Started
from workledger.training.log_lines import LogEvent, Steps

__all__ = ["FINISHED", "WorkflowFold"]

#: The status that each of these event types gives a workflow.
FINISHED: Final = {"workflow.completed": "completed", "workflow.failed": "failed", "workflow.cancelled": "cancelled"}

_EMPTY: Final = msgspec.Raw(b"{}")
_NO_TAGS: Final = msgspec.Raw(b"[]")


class _Payload(msgspec.Struct, frozen=True, gc=False):
    name: msgspec.Raw = NULL
    workflow_type: msgspec.Raw = NULL
    input: msgspec.Raw = NULL
    output: msgspec.Raw = NULL
    metadata: msgspec.Raw = NULL
    tags: msgspec.Raw = NULL
    subject: msgspec.Raw = NULL
    conversation_id: msgspec.Raw = NULL
    parent_workflow_id: msgspec.Raw = NULL
    trace_id: msgspec.Raw = NULL
    definition_version: msgspec.Raw = NULL
    worker_id: msgspec.Raw = NULL
    state_data: msgspec.Raw = NULL
    current_step: msgspec.Raw = NULL
    error: msgspec.Raw = NULL
    error_type: msgspec.Raw = NULL
    error_traceback: msgspec.Raw = NULL
    execution_time_ms: msgspec.Raw = NULL
    total_steps: int | None = None


class _Line(msgspec.Struct, frozen=True, gc=False):
    position: int
    started_position: int | None
    workflow_id: str | None
    conversation_id: msgspec.Raw
    name: msgspec.Raw
    workflow_type: msgspec.Raw
    status: str
    attempt: int
    current_step: msgspec.Raw
    total_steps: int
    completed_steps: int
    state_data: msgspec.Raw
    input_data: msgspec.Raw
    output_data: msgspec.Raw
    error: msgspec.Raw
    error_type: msgspec.Raw
    error_traceback: msgspec.Raw
    created_at: str | None
    updated_at: str
    started_at: str | None
    completed_at: str
    cancel_requested_at: str | None
    execution_time_ms: msgspec.Raw
    definition_version: msgspec.Raw
    parent_workflow_id: msgspec.Raw
    subject: msgspec.Raw
    trace_id: msgspec.Raw
    worker_id: msgspec.Raw
    tags: msgspec.Raw
    metadata: msgspec.Raw


_NOTHING: Final = _Payload()
_decode = msgspec.json.Decoder(_Payload).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class WorkflowFold(msgspec.Struct):
    """What a workflow has come to at a position. Takes its events in the order of the log, each once."""

    workflow_id: str | None
    began: LogEvent | None = None
    born: _Payload = _NOTHING
    started_at: str | None = None
    attempt: int = 1
    total_steps: int = 0
    completed_steps: int = 0
    current_step: msgspec.Raw = NULL
    current_step_position: int = 0
    state_data: msgspec.Raw = _EMPTY
    output: msgspec.Raw = NULL
    metadata: msgspec.Raw = _EMPTY
    conversation_id: msgspec.Raw = NULL
    worker_id: msgspec.Raw = NULL
    error: msgspec.Raw = NULL
    error_type: msgspec.Raw = NULL
    error_traceback: msgspec.Raw = NULL
    execution_time_ms: msgspec.Raw = NULL
    cancel_requested_at: str | None = None

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return 1500 + len(self.born.input) + len(self.state_data) + len(self.metadata) + len(self.output)

    def take(self, event: LogEvent) -> None:
        """Take in one of the workflow's own events."""
        try:
            payload = _decode(event.payload)
        except msgspec.MsgspecError:
            payload = _NOTHING
        if event.event_type in _BEGIN:
            self._begin(event, payload)
            return
        self._change(event, payload)
        match event.event_type:
            case "workflow.completed":
                self.output = payload.output
            case "workflow.failed" | "workflow.cancelled":
                self._fail(payload)
            case "workflow.resumed":
                self._resume(event, payload)
            case "workflow.cancel_requested":
                self.cancel_requested_at = self.cancel_requested_at or event.created_at
            case _:
                pass

    def take_start(self, position: int, started: Started) -> None:
        """Take in that one of the workflow's steps began."""
        self.current_step, self.current_step_position = started.task_name, position

    def take_steps(self, steps: Steps) -> None:
        """Take in what its steps had come to, after its own events up to the same position."""
        self.completed_steps = steps.completed
        if steps.last_position > self.current_step_position:
            self.current_step, self.current_step_position = steps.last_name, steps.last_position

    def line(self, ended: LogEvent) -> bytes:
        """Give the line of the workflow that `ended`, after that event was taken in."""
        began, born = self.began, self.born
        completed = ended.event_type == "workflow.completed"
        # By position, in the order of the columns.
        return _encode(
            _Line(
                ended.position,
                began.position if began else None,
                self.workflow_id,
                self.conversation_id,
                born.name,
                born.workflow_type,
                FINISHED[ended.event_type],
                self.attempt,
                self.current_step,
                max(self.total_steps, self.completed_steps) if completed else self.total_steps,
                self.completed_steps,
                self.state_data,
                born.input,
                self.output,
                self.error,
                self.error_type,
                self.error_traceback,
                began.created_at if began else None,
                ended.recorded_at,
                self.started_at,
                ended.created_at,
                self.cancel_requested_at,
                self.execution_time_ms,
                born.definition_version,
                born.parent_workflow_id,
                born.subject,
                born.trace_id,
                self.worker_id,
                _NO_TAGS if born.tags == NULL else born.tags,
                self.metadata,
            )
        )

    def _begin(self, event: LogEvent, payload: _Payload) -> None:
        """Its first event makes the row; `workflow.started` after `workflow.created` only says when and where."""
        if self.began is None:
            self.began, self.born = event, payload
            self.total_steps = payload.total_steps or 0
            self.state_data = _given(payload.state_data, _EMPTY)
            self.metadata = _given(payload.metadata, _EMPTY)
            self.conversation_id = payload.conversation_id
        self.worker_id = payload.worker_id
        if event.event_type == "workflow.started":
            self.started_at = event.created_at

    def _change(self, event: LogEvent, payload: _Payload) -> None:
        """Take in what any later event may say; what it does not say stays."""
        self.state_data = _given(payload.state_data, self.state_data)
        self.conversation_id = _given(payload.conversation_id, self.conversation_id)
        self.execution_time_ms = _given(payload.execution_time_ms, self.execution_time_ms)
        if payload.current_step != NULL:
            self.current_step, self.current_step_position = payload.current_step, event.position
        if payload.total_steps is not None and event.event_type != "workflow.completed":
            self.total_steps = payload.total_steps
        if payload.metadata != NULL:
            self.metadata = _merged(self.metadata, payload.metadata)

    def _fail(self, payload: _Payload) -> None:
        self.error, self.error_type = payload.error, payload.error_type
        self.error_traceback = payload.error_traceback

    def _resume(self, event: LogEvent, payload: _Payload) -> None:
        self._fail(payload)
        self.output = self.execution_time_ms = NULL
        self.cancel_requested_at = None
        self.worker_id = payload.worker_id
        self.attempt += 1
        self.started_at = self.started_at or event.created_at


_BEGIN: Final = frozenset({"workflow.created", "workflow.started"})


def _given(value: msgspec.Raw, otherwise: msgspec.Raw) -> msgspec.Raw:
    return otherwise if value == NULL else value


def _merged(old: msgspec.Raw, new: msgspec.Raw) -> msgspec.Raw:
    """Do what `||` does to two JSON objects: keys of the second win."""
    try:
        return msgspec.Raw(_encode(_decode_object(old) | _decode_object(new)))
    except msgspec.MsgspecError:
        return new
