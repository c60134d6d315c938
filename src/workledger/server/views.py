"""What the dashboard shows and `/api/v1` returns: the same frozen view models for both.

Times are aware and in UTC, durations in milliseconds, sizes in bytes. A recorded value is a `Value`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import orjson

from workledger.log.consumers import Consumer
from workledger.model.jsonvalue import TAG, encode, escape_text
from workledger.operational.overview import DatabaseFacts, EventPartition, WorkerState

__all__ = [
    "EventPage",
    "EventView",
    "ExecutionPage",
    "ExecutionView",
    "FeedbackView",
    "Filters",
    "Health",
    "MessagePage",
    "MessageView",
    "StatusCount",
    "TrainingFacts",
    "TrainingShards",
    "Value",
    "WorkerView",
    "WorkflowDetail",
    "WorkflowList",
    "WorkflowSummary",
    "WorkflowView",
    "to_json",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A recorded value as the JSON that is stored. `json` is None for a large one: then `digest` says where it is."""

    json: str | None
    size_bytes: int
    digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which workflows a list shows. `q` is looked for in names, ids and errors."""

    status: str | None = None
    q: str | None = None
    name: str | None = None
    type: str | None = None
    tag: str | None = None
    subject: str | None = None

    def given(self) -> dict[str, str]:
        """The filters that are set, by name."""
        return {field.name: value for field in dataclasses.fields(self) if (value := getattr(self, field.name))}


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusCount:
    """How many workflows that the other filters match stand in a status; `is_capped`: there are more than `count`."""

    status: str
    count: int
    is_capped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowSummary:
    """One workflow in a list."""

    workflow_id: str
    name: str | None
    workflow_type: str | None
    status: str
    current_step: str | None
    completed_steps: int
    total_steps: int
    error_type: str | None
    error: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    duration_ms: float | None
    attempt: int
    tags: tuple[str, ...]
    subject: str | None
    parent_workflow_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowList:
    """One page of workflows, newest first. `newer` and `older` are the cursors of the pages beside it.

    `counts` is None when counting took too long.
    """

    workflows: tuple[WorkflowSummary, ...]
    counts: tuple[StatusCount, ...] | None
    filters: Filters
    newer: str | None
    older: str | None
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """The worker that runs or ran a workflow; `state` is `alive`, `overdue`, `lost` or `stopped`."""

    worker_id: str
    hostname: str | None
    pid: int | None
    state: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowView:
    """One workflow, whole."""

    workflow_id: str
    name: str | None
    workflow_type: str | None
    status: str
    current_step: str | None
    completed_steps: int
    total_steps: int
    error_type: str | None
    error: str | None
    error_traceback: str | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    cancel_requested_at: datetime | None
    duration_ms: float | None
    attempt: int
    tags: tuple[str, ...]
    subject: str | None
    definition_version: str | None
    parent_workflow_id: str | None
    conversation_id: str | None
    trace_id: str | None
    worker: WorkerView | None
    input_data: Value | None
    output_data: Value | None
    state_data: Value | None
    metadata: Value | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionView:
    """One attempt at one task."""

    execution_id: str
    parent_execution_id: str | None
    task_name: str | None
    kind: str
    status: str
    retry_count: int
    step_key: str | None
    error_type: str | None
    error: str | None
    error_traceback: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    duration_ms: float | None
    worker_id: str | None
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: Decimal | None
    input_data: Value | None
    output_data: Value | None
    metadata: Value | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionPage:
    """Attempts in the order they began. `next` and `last` are the cursors of those pages; `total` counts all."""

    items: tuple[ExecutionView, ...]
    next: str | None
    last: str | None
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageView:
    """One message of a conversation. `body` is the chat-completion object as it was recorded.

    `parent_seq` names the earlier message that it follows where that is not the one before: a branch begins.
    """

    message_id: str
    seq: int
    role: str
    body: Value
    workflow_id: str | None
    execution_id: str | None
    parent_seq: int | None
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: Decimal | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagePage:
    """Messages that stand, in the order of their `seq`."""

    items: tuple[MessageView, ...]
    next: int | None
    last: int | None
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    """One event. `position` is None until the sequencer has seen it."""

    position: int | None
    event_id: str
    event_type: str
    entity_type: str
    entity_id: str
    severity: str
    created_at: datetime
    recorded_at: datetime
    payload: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """Events in the order of the log, those without a position last."""

    items: tuple[EventView, ...]
    next: str | None
    last: str | None
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackView:
    """A judgement of the workflow, of one of its executions or of a message."""

    feedback_id: str
    name: str
    score: float | None
    label: str | None
    comment: str | None
    source: str | None
    execution_id: str | None
    message_id: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowDetail:
    """One workflow with all that hangs on it, a page of each. `children` are the workflows it started."""

    workflow: WorkflowView
    executions: ExecutionPage
    messages: MessagePage
    events: EventPage
    feedback: tuple[FeedbackView, ...]
    children: tuple[WorkflowSummary, ...]
    children_total: int
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingShards:
    """The shards of one record type in one format."""

    record_type: str
    format: str
    shards: int
    rows: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFacts:
    """The training store: where it is, the last position it holds, and its shards."""

    location: str
    position: int
    shards: tuple[TrainingShards, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How the ledger is. `status` is `ok`, or `attention` with the `reasons`."""

    status: str
    reasons: tuple[str, ...]
    head: int
    unsequenced: int
    consumers: tuple[Consumer, ...]
    workers: tuple[WorkerState, ...]
    training: TrainingFacts | None
    database: DatabaseFacts
    partitions: tuple[EventPartition, ...]
    now: datetime


def to_json(view: object) -> bytes:
    """A view model as JSON. Text has what JSON readers refuse escaped as `model.jsonvalue` does it."""
    return orjson.dumps(_plain(view))


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int():
            return value
        case str():
            return escape_text(value)
        case float():
            return value if math.isfinite(value) else orjson.Fragment(encode(value))
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        case Decimal():
            return orjson.Fragment(f"{value:f}")
        case Value():
            return _value(value)
        case Mapping():
            return {escape_text(key): _plain(item) for key, item in cast("Mapping[str, Any]", value).items()}
        case list() | tuple():
            return [_plain(item) for item in cast("list[Any]", value)]
        case _:
            return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}


def _value(value: Value) -> Any:
    if value.json is not None:
        return orjson.Fragment(value.json)
    return {TAG: "payload", "digest": value.digest, "size": value.size_bytes}
