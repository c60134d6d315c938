"""The value that a change is, and what its makers share."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import orjson

from workledger.errors import InvalidInput
from workledger.model.checks import short
from workledger.model.ids import check_event_id, check_id, new_event_id
from workledger.model.payload import Blob, Packer
from workledger.model.status import LEGAL_BEFORE, Severity

__all__ = ["Change", "Failure", "Usage", "check_time", "make_change"]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One event to be, with the large values it refers to. `payload` is JSON, ready for PostgreSQL."""

    event_id: str
    event_type: str
    entity_type: str
    entity_id: str
    workflow_id: str | None
    severity: str
    created_at: datetime
    expected: tuple[str, ...] | None
    payload: bytes
    blobs: tuple[Blob, ...] = ()

    def row(self, n: int) -> dict[str, Any]:
        """The change as one record of the JSON parameter that the statements read."""
        return {
            "n": n,
            "event_id": self.event_id,
            "event_type": self.event_type,
            "entity_type": self.entity_type,
            "entity_id": self.entity_id,
            "workflow_id": self.workflow_id,
            "severity": self.severity,
            "created_at": self.created_at,
            "expected": self.expected,
            "payload": orjson.Fragment(self.payload),
        }


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why something failed: the exception's type, its message and its traceback."""

    error_type: str
    error: str
    error_traceback: str | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a model call used: tokens in and out, its cost in US dollars, and the model's name.

    A cost that is not given is computed from the price table where the model is in it; `price_version` then names
    the table.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | Decimal | None = None
    model: str | None = None
    price_version: str | None = None


def check_time(field: str, value: datetime) -> datetime:
    """Return the instant in UTC; a naive datetime is refused, because it names no instant."""
    if value.tzinfo is None:
        raise InvalidInput(
            f"{field} {value.isoformat()} has no time zone; pass an aware datetime, for example in UTC",
            field=field,
            value=value,
            limit="aware",
        )
    return value.astimezone(UTC)


def make_change(
    event_type: str,
    *,
    entity: tuple[str, str],
    workflow_id: str | None,
    at: datetime,
    payload: Mapping[str, Any],
    packer: Packer | None = None,
    severity: Severity = Severity.INFO,
    event_id: str | None = None,
) -> Change:
    """A change of this type, with a fresh event id of its time, and the statuses it may follow."""
    at = check_time("at", at)
    if workflow_id is not None:
        workflow_id = check_id("workflow_id", workflow_id)
    legal = LEGAL_BEFORE.get(event_type)
    return Change(
        event_id=new_event_id(at) if event_id is None else check_event_id(event_id),
        event_type=event_type,
        entity_type=entity[0],
        entity_id=entity[1],
        workflow_id=workflow_id,
        severity=severity,
        created_at=at,
        expected=() if legal is None else legal,
        payload=_dumped({key: value for key, value in payload.items() if value is not None}),
        blobs=tuple(packer.blobs) if packer else (),
    )


def _dumped(payload: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(payload)
    except TypeError as error:
        for field, value in payload.items():
            with suppress(TypeError):
                orjson.dumps(value)
                continue
            raise InvalidInput(
                f"{field} {short(value)} cannot be recorded: {error}", field=field, value=value, limit="JSON"
            ) from error
        raise
