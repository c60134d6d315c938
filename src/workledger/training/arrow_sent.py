"""Columns of Arrow from what PostgreSQL sends in its binary protocol, without a look at any single row."""

from __future__ import annotations

import sys
from array import array
from typing import Any, Final, TypeAlias

from workledger.errors import MissingExtra, StoreCorrupted

try:
    import pyarrow as pa
    import pyarrow.compute as pc
except ImportError as error:
    raise MissingExtra("the archive needs pyarrow: pip install 'workledger[parquet]'", extra="parquet") from error

__all__ = ["instants", "numbers", "texts", "uuids"]

# pyarrow comes without types.
_Column: TypeAlias = Any

_UUID_CHARS: Final = 36
#: PostgreSQL counts microseconds from 2000-01-01, Arrow from 1970-01-01.
_EPOCHS_APART_US: Final = 946_684_800_000_000
_CODES: Final = {2: "h", 4: "i", 8: "q"}


def numbers(sent: bytes, rows: int, kind: Any) -> _Column:
    """Give big-endian integers as a column of integers of the same width."""
    width = kind.bit_width // 8
    _check(len(sent) == rows * width, rows)
    values = array(_CODES[width], sent)
    if sys.byteorder == "little":
        values.byteswap()
    return pa.Array.from_buffers(kind, rows, [None, pa.py_buffer(values)])


def instants(sent: bytes, rows: int) -> _Column:
    """Give instants as a column of `timestamp[us, UTC]`."""
    since = pc.call_function("add", [numbers(sent, rows, pa.int64()), pa.scalar(_EPOCHS_APART_US)])
    return since.cast(pa.timestamp("us", tz="UTC"))


def uuids(sent: bytes, rows: int) -> _Column:
    """Give UUIDs that come as text, one after the other, as a column of text."""
    _check(len(sent) == rows * _UUID_CHARS, rows)
    offsets = array("i", range(0, len(sent) + 1, _UUID_CHARS))
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(sent))


def texts(sent: bytes, sizes: bytes, rows: int) -> _Column:
    """Give texts that come one after the other, with their sizes in bytes, as a column of text; -1 stands for null."""
    lengths = numbers(sizes, rows, pa.int32())
    present = pc.call_function("greater_equal", [lengths, pa.scalar(0, pa.int32())])
    ends = pc.call_function(
        "cumulative_sum", [pc.call_function("max_element_wise", [lengths, pa.scalar(0, pa.int32())])]
    )
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    _check(offsets[-1].as_py() == len(sent), rows)
    return pa.StringArray.from_buffers(rows, offsets.buffers()[1], pa.py_buffer(sent), present.buffers()[1])


def _check(fits: bool, rows: int) -> None:  # noqa: FBT001
    if not fits:
        raise StoreCorrupted(
            f"PostgreSQL sent {rows} rows whose columns do not fit together; is the database's encoding UTF8?",
            location="events",
        )
