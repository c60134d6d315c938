"""What is read back: frozen rows of state and log."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from workledger.model.jsonvalue import decode, unescape_text

__all__ = ["Conversation", "Event", "Feedback", "Message", "TaskExecution", "Worker", "Workflow", "from_row"]


class Event(msgspec.Struct, frozen=True):
    """An immutable fact. `position` is None until the sequencer has seen it. `payload_json` is the stored JSON."""

    position: int | None
    event_id: str
    event_type: str
    entity_type: str
    entity_id: str
    workflow_id: str | None
    severity: str
    created_at: datetime
    recorded_at: datetime
    schema_version: int
    payload_json: str

    @property
    def payload(self) -> dict[str, Any]:
        """The payload, decoded when asked for. Large values are references (`model.payload.reference_of`)."""
        return decode(self.payload_json)


class Workflow(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a named piece of work: its row in `workflows`, column by column."""

    workflow_id: str
    name: str | None
    workflow_type: str | None
    status: str
    current_step: str | None
    total_steps: int
    completed_steps: int
    state_data: Any
    error: str | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    error_type: str | None
    error_traceback: str | None
    input_data: Any
    output_data: Any
    metadata: Any
    tags: list[str]
    definition_version: str | None
    parent_workflow_id: str | None
    conversation_id: str | None
    subject: str | None
    trace_id: str | None
    worker_id: str | None
    attempt: int
    execution_time_ms: float | None
    cancel_requested_at: datetime | None


class TaskExecution(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at one task: its row in `task_executions`, column by column."""

    execution_id: str
    workflow_id: str
    task_name: str | None
    status: str
    input_data: Any
    output_data: Any
    error: str | None
    retry_count: int
    execution_time_ms: float | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    kind: str
    parent_execution_id: str | None
    step_key: str | None
    input_digest: str | None
    worker_id: str | None
    error_type: str | None
    error_traceback: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: Decimal | None
    model: str | None
    metadata: Any


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """A chat history: its row in `conversations`."""

    conversation_id: str
    title: str | None
    subject: str | None
    metadata: Any
    last_seq: int
    created_at: datetime
    updated_at: datetime


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a conversation. `body` is the chat-completion object as it was recorded."""

    message_id: str
    conversation_id: str
    seq: int
    role: str
    body: Mapping[str, Any]
    workflow_id: str | None
    execution_id: str | None
    parent_seq: int | None
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: Decimal | None
    created_at: datetime
    removed_at: datetime | None


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """A judgement of a workflow, an execution or a message: its row in `feedback`."""

    feedback_id: str
    workflow_id: str | None
    execution_id: str | None
    message_id: str | None
    name: str
    score: float | None
    label: str | None
    comment: str | None
    source: str | None
    created_at: datetime


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A process that records: its row in `workers`."""

    worker_id: str
    hostname: str
    pid: int
    version: str
    started_at: datetime
    heartbeat_at: datetime
    lease_s: float
    stopped_at: datetime | None
    lost_at: datetime | None


#: Text columns that may hold escaped text from a recorded program.
_ESCAPED_TEXT = frozenset({"error", "error_traceback", "error_type", "model", "label", "comment", "source", "title"})


def from_row(kind: type[Any], names: list[str], row: tuple[Any, ...]) -> Any:
    """Build a record from a row by column name; text that was escaped on the way in comes back as it was."""
    values = dict(zip(names, row, strict=True))
    for name in _ESCAPED_TEXT & values.keys():
        if values[name] is not None:
            values[name] = unescape_text(values[name])
    return kind(**values)
