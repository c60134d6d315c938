"""A shard compared with what the log gives, line by line, so that each line that differs can be named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import BinaryIO, Final

import msgspec

from workledger.training.records import SCHEMAS, RecordType

__all__ = ["LineFault", "differences", "lines_of"]

_POSITION: Final = re.compile(rb'(?:\{"position":)?(\d+),').match
_VALUE_CHARS: Final = 60

#: Where it is (the number of the line or row), its position, and what is wrong.
LineFault = tuple[int | None, int | None, str]


def lines_of(file: BinaryIO, file_format: str) -> Iterator[bytes]:
    """Give the lines of a shard, each with what ends it; a row of CSV ends where its quotes are closed."""
    if file_format != "csv":
        yield from file
        return
    row = b""
    for part in file:
        row += part
        if row.endswith(b"\r\n") and row.count(b'"') % 2 == 0:
            yield row
            row = b""
    if row:
        yield row


def differences(
    found: Iterable[bytes], expected: Iterable[bytes], *, record_type: RecordType, file_format: str
) -> Iterator[LineFault]:
    """Compare the lines of a file with those that the log gives; both ascend by position."""
    describe = _json_difference(record_type) if file_format == "jsonl" else _no_detail
    awaited = iter(expected)
    wanted = next(awaited, None)
    for number, line in enumerate(found, start=1):
        if line == wanted:
            wanted = next(awaited, None)
            continue
        position = _position(line)
        if position is None:
            yield number, None, "is none of ours"
            continue
        while wanted is not None and (_position(wanted) or 0) < position:
            yield from _missing(wanted)
            wanted = next(awaited, None)
        if wanted is None or _position(wanted) != position:
            yield number, position, "does not belong here: the log has no such line after the one above"
            continue
        if line != wanted:
            yield number, position, f"differs from the log{describe(line, wanted)}"
        wanted = next(awaited, None)
    if wanted is not None:
        for left in chain((wanted,), awaited):
            yield from _missing(left)


def _missing(line: bytes) -> Iterator[LineFault]:
    position = _position(line)
    yield None, position, "is missing" if position else "with the names of the columns is missing"


def _position(line: bytes) -> int | None:
    found = _POSITION(line)
    return int(found[1]) if found else None


def _no_detail(_line: bytes, _wanted: bytes) -> str:
    return ""


def _json_difference(record_type: RecordType) -> Callable[[bytes, bytes], str]:
    columns = [column.name for column in SCHEMAS[record_type].columns]
    decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

    def describe(line: bytes, wanted: bytes) -> str:
        try:
            ours, theirs = decode(line), decode(wanted)
        except msgspec.MsgspecError as error:
            return f": {error}"
        told = [
            f"{name} is {_short(ours.get(name))}, the log says {_short(theirs.get(name))}"
            for name in columns
            if _short(ours.get(name), chars=None) != _short(theirs.get(name), chars=None)
        ]
        more = sorted(ours.keys() - theirs.keys())
        return ": " + "; ".join(told or [f"columns {more} are not ours" if more else "in its spaces or its order"])

    return describe


def _short(value: msgspec.Raw | None, *, chars: int | None = _VALUE_CHARS) -> str:
    if value is None:
        return "absent"
    text = bytes(value).decode(errors="replace")
    return text if chars is None or len(text) <= chars else text[:chars] + "…"
