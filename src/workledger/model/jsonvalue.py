"""Any Python value to JSON that PostgreSQL keeps, and back unchanged.

`encode` is exact: what it returns, `decode` turns back into an equal value of the same types, or it holds a
described placeholder for what JSON cannot hold. PostgreSQL's `jsonb` has no NUL, no lone surrogates, no NaN, no
infinities and no negative zero, and it forgets the difference between `1e16` and `10000000000000000`. So:

- in strings, U+FDD0 (a Unicode noncharacter) followed by four hex digits stands for a code unit that jsonb
  refuses, and for U+FDD0 itself;
- values that JSON lacks are objects with the reserved key `$workledger`: `{"$workledger": "float", "value": "NaN"}`;
- a dict that uses the reserved key is itself wrapped, so that no input can be mistaken for a tag.

Tuples come back as lists, which is what JSON makes of them; everything else keeps its type or says that it
could not.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import decimal
import enum
import math
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec
import orjson

__all__ = ["TAG", "Placeholder", "decode", "encode", "escape_text", "is_placeholder", "unescape_text"]

TAG = "$workledger"

# Bytes that can only come from (or could be mistaken for) something that needs the careful path: \u0000 is a NUL,
# EF B7 90 is U+FDD0 in UTF-8, and jsonb expands exponents.
_SUSPECT = re.compile(rb"\\u0000|\xef\xb7\x90|\$workledger|-0\.0|[0-9]e\+?[0-9]").search
_MARKED = re.compile(rb"\xef\xb7\x90|\$workledger|\\u[fF][dD][dD]0").search
_UNSTORABLE = re.compile("[\x00\ud800-\udfff\ufdd0]")
_ESCAPED = re.compile("\ufdd0([0-9A-F]{4})")
_MAX_DEPTH = 200
_SCALARS = frozenset({str, int, bool, type(None)})
_SEQUENCES = frozenset({list, tuple})
_MAX_INTEGER_DIGITS = 4000
_REPR_CHARS = 200
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class Placeholder(dict[str, Any]):
    """What stands where a value could not be kept: its type, the reason, and the beginning of its repr."""

    def __init__(self, value: object, reason: str, **details: Any) -> None:
        super().__init__(
            {TAG: "placeholder", "type": _type_name(value), "reason": reason, "repr": _short_repr(value), **details}
        )


def is_placeholder(value: object) -> bool:
    """Say whether a decoded value stands for something that could not be kept."""
    return isinstance(value, dict) and cast("dict[str, Any]", value).get(TAG) == "placeholder"


def encode(value: object, *, on_placeholder: Callable[[Placeholder], None] | None = None) -> bytes:
    """Return JSON (UTF-8) that PostgreSQL stores and `decode` turns back into an equal value.

    Never raises for a value: what JSON cannot hold becomes a `Placeholder`, and `on_placeholder` is told.
    """
    try:
        if _is_plain(value):
            data = orjson.dumps(value)
            if not _SUSPECT(data):
                return data
    except (TypeError, RecursionError):
        pass  # an integer beyond 64 bits, a lone surrogate, a cycle
    return orjson.dumps(_Encoder(on_placeholder).convert(value, 0))


def decode(data: bytes | str) -> Any:
    """Return the value that `encode` was given; integers of any size stay exact."""
    raw = data.encode() if isinstance(data, str) else bytes(data)
    value = msgspec.json.decode(raw)
    return _revert(value) if _MARKED(raw) else value


def escape_text(text: str) -> str:
    """Return the text with NUL and lone surrogates escaped, as `encode` writes it."""
    return _UNSTORABLE.sub(lambda match: f"\ufdd0{ord(match.group()):04X}", text)


def unescape_text(text: str) -> str:
    """Undo `escape_text`."""
    if "\ufdd0" not in text:
        return text
    return _ESCAPED.sub(lambda match: chr(int(match.group(1), 16)), text)


def _is_plain(value: object) -> bool:
    """Say whether a value has only JSON's own types: orjson would also write enums, UUIDs or NaN, without a word."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is float:
        return math.isfinite(cast("float", value))
    if kind is dict:
        for key, item in cast("dict[Any, Any]", value).items():
            if type(key) is not str or not (type(item) in _SCALARS or _is_plain(item)):
                return False
        return True
    if kind in _SEQUENCES:
        return all(type(item) in _SCALARS or _is_plain(item) for item in cast("list[Any]", value))
    return False


class _Encoder:
    """One walk over one value; remembers the containers above, so that a cycle ends."""

    def __init__(self, on_placeholder: Callable[[Placeholder], None] | None) -> None:
        self._told = on_placeholder
        self._open: set[int] = set()

    def convert(self, value: object, depth: int) -> Any:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is str:
            return escape_text(cast("str", value))
        if kind is int:
            return self._integer(cast("int", value))
        if kind is float:
            return _number(cast("float", value))
        if depth >= _MAX_DEPTH:
            return self._give_up(value, f"nested deeper than {_MAX_DEPTH} levels")
        if kind in {dict, list, tuple}:
            return self._container(value, depth)
        return self._other(value, depth)

    def _container(self, value: object, depth: int) -> Any:
        if id(value) in self._open:
            return self._give_up(value, "contains itself")
        self._open.add(id(value))
        try:
            if isinstance(value, dict):
                return self._mapping(cast("dict[Any, Any]", value), depth)
            return [self.convert(item, depth + 1) for item in cast("list[Any]", value)]
        finally:
            self._open.discard(id(value))

    def _mapping(self, value: dict[Any, Any], depth: int) -> Any:
        if all(type(key) is str for key in value):
            plain = {escape_text(key): self.convert(item, depth + 1) for key, item in value.items()}
            return {TAG: "dict", "value": plain} if TAG in value else plain
        pairs = [[self.convert(key, depth + 1), self.convert(item, depth + 1)] for key, item in value.items()]
        return {TAG: "map", "value": pairs}

    def _integer(self, value: int) -> Any:
        if -(2**63) <= value < 2**64:
            return value
        if value.bit_length() > _MAX_INTEGER_DIGITS * 3:
            return self._give_up(value, f"integer of more than {_MAX_INTEGER_DIGITS} digits")
        return orjson.Fragment(str(value))

    def _other(self, value: object, depth: int) -> Any:
        if isinstance(value, enum.Enum):
            return {TAG: "enum", "type": _type_name(value), "value": self.convert(value.value, depth + 1)}
        if isinstance(value, (str, int, float)):
            base = str if isinstance(value, str) else int if isinstance(value, int) else float
            return {TAG: "subclass", "type": _type_name(value), "value": self.convert(base(value), depth + 1)}
        tagged = _tag_scalar(value)
        if tagged is not None:
            return tagged
        if isinstance(value, (set, frozenset)):
            return self._set(cast("set[Any]", value), depth)
        return self._object(value, depth)

    def _set(self, value: set[Any] | frozenset[Any], depth: int) -> Any:
        items = [self.convert(item, depth + 1) for item in value]
        # A set has no order; one is chosen, so that equal sets give equal bytes.
        items.sort(key=orjson.dumps)
        return {TAG: "frozenset" if isinstance(value, frozenset) else "set", "value": items}

    def _object(self, value: object, depth: int) -> Any:
        fields = _fields(value)
        if fields is None:
            return self._give_up(value, "not JSON-serialisable")
        if id(value) in self._open:
            return self._give_up(value, "contains itself")
        self._open.add(id(value))
        try:
            content = self._mapping(fields, depth + 1)
        finally:
            self._open.discard(id(value))
        return {TAG: "object", "type": _type_name(value), "value": content}

    def _give_up(self, value: object, reason: str) -> dict[str, Any]:
        placeholder = Placeholder(value, reason)
        if self._told is not None:
            self._told(placeholder)
        return dict(placeholder)


def _fields(value: object) -> dict[str, Any] | None:
    """The fields of an object that says what they are (dataclass, pydantic, attrs, msgspec, mapping), or None."""
    try:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        if isinstance(value, msgspec.Struct):
            return {name: getattr(value, name) for name in value.__struct_fields__}
        if isinstance(value, Mapping):
            return dict(cast("Mapping[str, Any]", value))
        dump = getattr(value, "model_dump", None)
        if callable(dump) and not isinstance(value, type):
            dumped = dump()
            return cast("dict[str, Any]", dumped) if isinstance(dumped, dict) else None
    except Exception:  # noqa: BLE001  a recorded program's own code: whatever it raises, recording goes on
        return None
    return None


def _number(value: float) -> Any:
    if not math.isfinite(value) or (value == 0 and math.copysign(1, value) < 0):
        return {TAG: "float", "value": "NaN" if value != value else repr(value)}  # noqa: PLR0124
    text = repr(value)
    if "e" in text and "e-" not in text:
        return orjson.Fragment(f"{decimal.Decimal(text):f}.0")
    return value


def _tag_scalar(value: object) -> dict[str, Any] | None:
    match value:
        case dt.datetime() | dt.date() | dt.time():
            return {TAG: type(value).__name__, "value": value.isoformat()}
        case dt.timedelta():
            return {TAG: "timedelta", "value": [value.days, value.seconds, value.microseconds]}
        case uuid.UUID():
            return {TAG: "uuid", "value": str(value)}
        case decimal.Decimal():
            return {TAG: "decimal", "value": str(value)}
        case bytes() | bytearray():
            return {TAG: type(value).__name__, "value": base64.b64encode(value).decode()}
        case complex():
            return {TAG: "complex", "value": [_number(value.real), _number(value.imag)]}
        case _:
            return None


_REVERT: dict[str, Callable[[Any], Any]] = {
    "float": float,
    "datetime": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "time": dt.time.fromisoformat,
    "timedelta": lambda value: dt.timedelta(*value),
    "uuid": uuid.UUID,
    "decimal": decimal.Decimal,
    "bytes": base64.b64decode,
    "bytearray": lambda value: bytearray(base64.b64decode(value)),
    "complex": lambda value: complex(*value),
    "set": set,
    "frozenset": frozenset,
    "map": dict,
}


def _revert(value: Any) -> Any:
    if isinstance(value, str):
        return unescape_text(value)
    if isinstance(value, list):
        return [_revert(item) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    mapping = cast("dict[str, Any]", value)
    tag = mapping.get(TAG)
    if tag == "dict":
        return {unescape_text(key): _revert(item) for key, item in mapping["value"].items()}
    if isinstance(tag, str) and tag in _REVERT:
        return _REVERT[tag](_revert(mapping["value"]))
    return {unescape_text(key): _revert(item) for key, item in mapping.items()}


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _short_repr(value: object) -> str:
    try:
        # An address differs from run to run; a resumed workflow would look changed for nothing.
        text = _ADDRESS.sub("", repr(value))
    except Exception as error:  # noqa: BLE001  a broken __repr__ must not break the recorded program
        text = f"<repr failed: {type(error).__name__}>"
    return escape_text(text if len(text) <= _REPR_CHARS else text[:_REPR_CHARS] + "…")
