"""Ids: who makes them, what they may look like."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import NewType

import uuid_utils

from workledger.errors import InvalidInput

__all__ = [
    "EventId",
    "ExecutionId",
    "WorkflowId",
    "check_event_id",
    "check_id",
    "check_name",
    "month_of",
    "new_event_id",
    "new_id",
    "time_of",
]

WorkflowId = NewType("WorkflowId", str)
ExecutionId = NewType("ExecutionId", str)
EventId = NewType("EventId", str)

MAX_ID_CHARS = 255
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST = _EPOCH
_LATEST = datetime(3000, 1, 1, tzinfo=UTC)
_LAST_MS = 253_402_300_799_000  # the last second of the year 9999
_REFUSED = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef]").search


def new_id() -> str:
    """A fresh UUIDv7 as text: unique, and sortable by creation time."""
    return str(uuid_utils.uuid7())


def new_event_id(created_at: datetime) -> EventId:
    """A fresh UUIDv7 that carries `created_at` to the millisecond (RFC 9562, section 5.7)."""
    since = created_at - _EPOCH
    microseconds = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return EventId(str(uuid_utils.uuid7(nanoseconds=max(microseconds, 0) * 1000)))


def check_event_id(value: str | uuid.UUID) -> EventId:
    """Return an event id given by a caller, or raise `InvalidInput`: it must be a UUIDv7, which carries its time."""
    try:
        parsed = value if isinstance(value, uuid.UUID) else uuid.UUID(value)
    except (ValueError, AttributeError, TypeError):
        parsed = uuid.UUID(int=0)
    if parsed.version != 7 or not _EARLIEST <= time_of(str(parsed)) < _LATEST:  # noqa: PLR2004  the version we need
        raise InvalidInput(
            f"event_id {str(value)[:80]!r} is not a UUIDv7 of the years 1970 to 2999; leave it out, or make one with "
            "uuid7()",
            field="event_id",
            value=value,
            limit="UUIDv7",
        )
    return EventId(str(parsed))


def time_of(event_id: str) -> datetime:
    """The creation time that a UUIDv7 carries; years beyond what Python can hold are cut to its last."""
    milliseconds = int(event_id.replace("-", "")[:12], 16)
    return _EPOCH + timedelta(milliseconds=min(milliseconds, _LAST_MS))


def month_of(event_id: str) -> datetime:
    """The first instant of the month that a UUIDv7 belongs to, in UTC: the partition of its event."""
    return time_of(event_id).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def check_id(field: str, value: object) -> str:
    """Return the id, or raise `InvalidInput` that names the field, the value and the limit."""
    if isinstance(value, uuid.UUID):
        return str(value)
    return check_name(field, value, limit=MAX_ID_CHARS)


def check_name(field: str, value: object, *, limit: int = MAX_ID_CHARS) -> str:
    """Return a short printable text, or raise `InvalidInput`: 1 to `limit` characters, no control characters."""
    if not isinstance(value, str):
        raise InvalidInput(f"{field} must be text, not {type(value).__name__}", field=field, value=value, limit=limit)
    if not value:
        raise InvalidInput(f"{field} is empty; it takes 1 to {limit} characters", field=field, value=value, limit=limit)
    if len(value) > limit:
        raise InvalidInput(
            f"{field} has {len(value)} characters ({value[:40]!r}…); the limit is {limit}",
            field=field,
            value=value,
            limit=limit,
        )
    if found := _REFUSED(value):
        raise InvalidInput(
            f"{field} {value[:80]!r} has the control character {found.group()!r}, which ids and names may not have",
            field=field,
            value=value,
            limit=limit,
        )
    return value
