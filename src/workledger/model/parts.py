"""Parts that several kinds of events have: a failure, what a model call used, a chat message."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson

from workledger.model.checks import check_count, check_number
from workledger.model.fact import Failure, Usage
from workledger.model.ids import check_name
from workledger.model.payload import Packer

__all__ = ["failure_fields", "split_message", "usage_fields"]

_MESSAGE_COLUMNS = ("role", "content", "tool_calls", "tool_call_id", "name")


def failure_fields(failure: Failure, packer: Packer) -> dict[str, str | None]:
    """What an event says of a failure."""
    return {
        "error_type": packer.text(failure.error_type),
        "error": packer.text(failure.error),
        "error_traceback": packer.text(failure.error_traceback),
    }


def usage_fields(usage: Usage | None, packer: Packer, at: datetime) -> dict[str, Any]:
    """What an event says of a model call's usage, priced where it has no cost; raises `InvalidInput`."""
    if usage is None:
        return {}
    if packer.pricing is not None:
        usage = packer.pricing(usage, at)
    cost_usd = None if usage.cost_usd is None else check_number("cost_usd", usage.cost_usd)
    return {
        "input_tokens": None if usage.input_tokens is None else check_count("input_tokens", usage.input_tokens),
        "output_tokens": None if usage.output_tokens is None else check_count("output_tokens", usage.output_tokens),
        "cost_usd": orjson.Fragment(f"{cost_usd:f}") if isinstance(cost_usd, Decimal) else cost_usd,
        "model": packer.text(usage.model),
        "price_version": usage.price_version,
    }


def split_message(message: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide a message into what has a column of its own and the rest; nothing is lost between the two."""
    role = message.get("role")
    check_name("message.role", role, limit=50)
    body: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for key, value in message.items():
        fits = key in _MESSAGE_COLUMNS and (key in {"content", "tool_calls"} or _is_plain(value))
        (body if fits else extra)[key] = value
    return body, extra


def _is_plain(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and value.isascii()
