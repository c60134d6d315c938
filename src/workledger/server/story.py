"""Events as a story: what each is about, and what it says in a few words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec

from workledger.model.jsonvalue import TAG, unescape_text
from workledger.server.views import EventView, WorkflowDetail

__all__ = ["Line", "lines"]

_CHARS: Final = 160
#: What tells most, in this order; keys that are not named come after.
_FIRST: Final = (
    "error_type",
    "error",
    "reason",
    "current_step",
    "message",
    "score",
    "label",
    "comment",
    "input",
    "output",
)
#: What stands elsewhere on the page, or tells nobody anything.
_LEFT_OUT: Final = frozenset({
    "attempt", "conversation_id", "error_traceback", "execution_id", "execution_time_ms", "feedback_id", "input_digest",
    "kind", "message_id", "name", "parent_execution_id", "seq", "step_key", "task_name", "worker_id",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One event: `about` names the task, the message or the judgement; `says` is the beginning of what it carries."""

    event: EventView
    about: str
    says: str


def lines(detail: WorkflowDetail) -> Iterator[Line]:
    """The events of a page, each with what it is about."""
    names = {item.execution_id: item.task_name or item.kind for item in detail.executions.items}
    for event in detail.events.items:
        payload: dict[str, Any] = msgspec.json.decode(event.payload.json or "{}")
        yield Line(event=event, about=_about(event, payload, names), says=_says(payload)[:_CHARS])


def _about(event: EventView, payload: dict[str, Any], names: dict[str, str]) -> str:
    if event.entity_type == "task":
        return unescape_text(str(payload.get("task_name") or names.get(event.entity_id, "")))
    if event.event_type == "message.added":
        return f"#{payload.get('seq')} {_role(payload)}"
    return unescape_text(str(payload.get("name") or ""))


def _role(payload: dict[str, Any]) -> str:
    message = payload.get("message")
    return unescape_text(str(cast("dict[str, Any]", message).get("role", ""))) if isinstance(message, dict) else ""


def _says(payload: dict[str, Any]) -> str:
    keys = [key for key in _FIRST if key in payload]
    keys += [key for key in payload if key not in _FIRST and key not in _LEFT_OUT]
    found = [_said(key, payload[key]) for key in keys if payload[key] not in (None, "", [], {})]
    return " · ".join(text for text in found if text)


def _said(key: str, value: Any) -> str:
    if key == "message" and isinstance(value, dict):
        message = cast("dict[str, Any]", value)
        value = message.get("content") or message.get("tool_calls")
        key = ""
    text = _short(value)
    return text if key in {"", "error", "error_type"} or not text else f"{unescape_text(key)}: {text}"


def _short(value: Any) -> str:
    if isinstance(value, str):
        return " ".join(unescape_text(value[: _CHARS * 2]).split())
    if isinstance(value, dict) and cast("dict[str, Any]", value).get(TAG) == "payload":
        return "(large)"
    return unescape_text(msgspec.json.encode(value).decode()[: _CHARS * 2])
