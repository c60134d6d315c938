"""Numbers as they may be recorded: refused by name where a column could not hold them."""

from __future__ import annotations

import math
import numbers
import operator
from decimal import Decimal
from typing import Any, Final, SupportsIndex, cast

from workledger.errors import InvalidInput

__all__ = ["check_count", "check_number", "short"]

_SHOWN: Final = 80


def check_count(field: str, value: object, *, bits: int = 64) -> int:
    """Return a whole number from zero on that a signed integer of so many bits holds, or raise `InvalidInput`."""
    try:
        number = operator.index(cast("SupportsIndex", value))
    except TypeError:
        number = -1
    limit = (1 << (bits - 1)) - 1
    if not 0 <= number <= limit:
        raise InvalidInput(
            f"{field} {short(value)} is not a whole number from 0 to {limit}", field=field, value=value, limit=limit
        )
    return number


def check_number(field: str, value: object) -> float | Decimal:
    """Return a finite number, or raise `InvalidInput`: NaN and infinities are no amounts."""
    if isinstance(value, numbers.Real) and not isinstance(value, (int, float)):
        value = float(value)
    if not _is_finite(value):
        raise InvalidInput(f"{field} {short(value)} is not a finite number", field=field, value=value, limit="finite")
    return cast("float | Decimal", value)


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, (int, float, Decimal)) and math.isfinite(value)
    except (OverflowError, ValueError):  # beyond what a float holds; a signalling NaN
        return False


def short(value: object) -> str:
    """A value as it is shown in a message."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
