"""Rows into view models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from workledger.model.jsonvalue import encode
from workledger.model.payload import Reference, reference_of
from workledger.model.records import Event, Feedback, Workflow
from workledger.operational import overview
from workledger.operational.overview import Row
from workledger.postgres.connection import Connection
from workledger.server.views import (
    EventPage,
    EventView,
    ExecutionPage,
    ExecutionView,
    FeedbackView,
    MessagePage,
    MessageView,
    Value,
    WorkerView,
    WorkflowSummary,
    WorkflowView,
)

__all__ = ["Values", "event_page", "execution_page", "feedback", "message_page", "summary", "workflow"]

#: Values above this many bytes of JSON are named by digest and size, not included.
INLINE_BYTES: Final = 64_000
#: The stored values of a page together are included up to this many bytes.
PAGE_BYTES: Final = 4_000_000

_REFERENCE_CHARS: Final = 300
_JSON_COLUMNS: Final = ("input_data", "output_data", "state_data", "metadata", "content", "tool_calls")


class Values:
    """Stored JSON on its way to a page: what rows refer to is loaded at once, as far as it may be included."""

    def __init__(self, loaded: dict[bytes, str]) -> None:
        self._loaded = loaded

    @classmethod
    def load(cls, connection: Connection, rows: Iterable[Row]) -> Values:
        """Load what the JSON columns of rows refer to."""
        texts = (text for row in rows for name in _JSON_COLUMNS if (text := row.get(name)) is not None)
        wanted: set[bytes] = set()
        total_bytes = 0
        for found in filter(None, map(_reference, texts)):
            fits = found.size_bytes <= INLINE_BYTES and total_bytes + found.size_bytes <= PAGE_BYTES
            if fits and found.digest not in wanted:
                wanted.add(found.digest)
                total_bytes += found.size_bytes
        return cls(overview.stored_json(connection, wanted) if wanted else {})

    def get(self, text: str | None) -> Value | None:
        """The value of a JSON column; None for SQL NULL."""
        if text is None:
            return None
        found = _reference(text)
        if found is None:
            return Value(json=text, size_bytes=len(text.encode()))
        return Value(json=self._loaded.get(found.digest), size_bytes=found.size_bytes, digest=found.digest.hex())


def _reference(text: str) -> Reference | None:
    if len(text) > _REFERENCE_CHARS or '"$workledger": "payload"' not in text:
        return None
    return reference_of(msgspec.json.decode(text))


def summary(record: Workflow) -> WorkflowSummary:
    """A workflow as a list shows it."""
    return WorkflowSummary(
        **_columns(WorkflowSummary, msgspec.structs.asdict(record)),
        duration_ms=record.execution_time_ms,
        tags=tuple(record.tags),
    )


def workflow(row: Row, values: Values) -> WorkflowView:
    """A workflow, whole."""
    return WorkflowView(
        **_columns(WorkflowView, row, values),
        duration_ms=row["execution_time_ms"],
        tags=tuple(row["tags"]),
        worker=_worker(row),
    )


def _worker(row: Row) -> WorkerView | None:
    if row["worker_id"] is None:
        return None
    return WorkerView(
        worker_id=row["worker_id"],
        hostname=row["worker_hostname"],
        pid=row["worker_pid"],
        state=row["worker_state"],
    )


def execution_page(rows: Sequence[Row], values: Values, *, limit: int, total: int, last: str | None) -> ExecutionPage:
    """A page of attempts; `rows` may hold one more than the limit, which says that there is a next page."""
    items = tuple(
        ExecutionView(**_columns(ExecutionView, row, values), duration_ms=row["execution_time_ms"])
        for row in rows[:limit]
    )
    has_next = len(rows) > limit
    return ExecutionPage(
        items=items,
        next=items[-1].execution_id if has_next else None,
        last=last if has_next else None,
        total=total,
    )


def message_page(rows: Sequence[Row], values: Values, *, limit: int, total: int, last: int | None) -> MessagePage:
    """A page of messages."""
    items = tuple(_message(row, values) for row in rows[:limit])
    has_next = len(rows) > limit
    return MessagePage(
        items=items, next=items[-1].seq if has_next else None, last=last if has_next else None, total=total
    )


def _message(row: Row, values: Values) -> MessageView:
    body = _body(row, values)
    return MessageView(**_columns(MessageView, row), body=Value(json=body, size_bytes=len(body.encode())))


def _body(row: Row, values: Values) -> str:
    """The chat-completion object of a message, put together from its columns without decoding them."""
    parts = [f'"role": {_quoted(row["role"])}']
    for name in ("content", "tool_calls"):
        value = values.get(row[name])
        if value is not None:
            parts.append(f'"{name}": {value.json or row[name]}')
    parts += [f'"{name}": {_quoted(row[name])}' for name in ("tool_call_id", "name") if row[name] is not None]
    extra: str = row["extra"].strip()[1:-1]
    return "{" + ", ".join([*parts, extra] if extra else parts) + "}"


def _quoted(text: str) -> str:
    return encode(text).decode()


def event_page(events: Sequence[Event], *, limit: int, total: int, last: str | None) -> EventPage:
    """A page of events."""
    items = tuple(_event(event) for event in events[:limit])
    has_next = len(events) > limit
    return EventPage(
        items=items, next=items[-1].event_id if has_next else None, last=last if has_next else None, total=total
    )


def _event(event: Event) -> EventView:
    payload = Value(json=event.payload_json, size_bytes=len(event.payload_json.encode()))
    return EventView(**_columns(EventView, msgspec.structs.asdict(event)), payload=payload)


def feedback(record: Feedback) -> FeedbackView:
    """A judgement."""
    return FeedbackView(**_columns(FeedbackView, msgspec.structs.asdict(record)))


def _columns(kind: type[Any], row: Row, values: Values | None = None) -> dict[str, Any]:
    """The columns of a row that a view model has under the same name; JSON columns become values."""
    names = [name for name in kind.__slots__ if name in row and name not in {"tags", "worker"}]
    return {
        name: values.get(row[name]) if values is not None and name in _JSON_COLUMNS else row[name] for name in names
    }
