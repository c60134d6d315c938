"""Canonical JSON (RFC 8785): one value, one sequence of bytes, in every language.

Keys are sorted by their UTF-16 code units, there is no white space, strings are escaped only where they must be,
and floats are written as ECMAScript writes them. We deviate in one point: RFC 8785 makes every number a double,
so that 9007199254740993 would be written as 9007199254740992; here an integer is written with all its digits.
Below 2^53 the two agree.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, cast

from workledger.errors import InvalidInput

__all__ = ["canonicalise"]

# ECMAScript's Number::toString writes plain digits between these powers of ten, and an exponent outside.
_LARGEST_PLAIN: Final = 21
_SMALLEST_PLAIN: Final = -7


def canonicalise(value: object) -> bytes:
    """Return the canonical JSON of a value made of dict, list, str, int, float, bool and None.

    Raises `InvalidInput` for anything else, for NaN and infinities, for keys that are not text and for lone
    surrogates: none of them has a canonical form.

    >>> canonicalise({"b": 1.0, "a": [2**60, None]})
    b'{"a":[1152921504606846976,null],"b":1}'
    """
    try:
        return _write(value).encode()
    except UnicodeEncodeError as error:
        raise _refused(value, "a lone surrogate") from error


def _write(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case int():
            return str(value)
        case float():
            return _number(value)
        case list() | tuple():
            return f"[{','.join(map(_write, cast('list[Any]', value)))}]"
        case Mapping():
            return _object(cast("Mapping[Any, Any]", value))
        case _:
            raise _refused(value, type(value).__name__)


def _object(value: Mapping[Any, Any]) -> str:
    for key in value:
        if not isinstance(key, str):
            raise _refused(key, f"a key of type {type(key).__name__}")
    ordered = sorted(value.items(), key=lambda item: item[0].encode("utf-16-be", "surrogatepass"))
    return "{" + ",".join(f"{_write(key)}:{_write(item)}" for key, item in ordered) + "}"


def _number(value: float) -> str:
    """Write a double as ECMAScript's Number::toString does (ECMA-262, 6.1.6.1.20)."""
    if not math.isfinite(value):
        raise _refused(value, repr(value))
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    # repr gives the shortest digits that read back as the same double, which is what ECMAScript asks for too.
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = fraction.rstrip("0") if fraction != "0" else ""
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    return sign + _place_point(digits.rstrip("0"), point)


def _place_point(digits: str, point: int) -> str:
    """Write `0.digits` times ten to the power of `point`."""
    if len(digits) <= point <= _LARGEST_PLAIN:
        return digits + "0" * (point - len(digits))
    if 0 < point <= _LARGEST_PLAIN:
        return f"{digits[:point]}.{digits[point:]}"
    if _SMALLEST_PLAIN < point - 1 < 0:
        return f"0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{point - 1:+d}"


def _refused(value: object, what: str) -> InvalidInput:
    return InvalidInput(f"{what} has no canonical JSON", field=None, value=value, limit="RFC 8785")
