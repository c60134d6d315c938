"""Lines as columns of Arrow: what Parquet and the tables of a lake are written from.

Text, JSON and timestamps of the lines become `string`, `string` and `timestamp[us, UTC]`; integers and numbers become
`int64` and `double`. A JSON column holds the JSON as text, byte for byte as JSONL has it, and the null of JSON is a
null. What a column cannot hold (nothing that Workledger records) is null there; JSONL has it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from workledger.errors import MissingExtra
from workledger.training.records import SCHEMA_VERSION, Column, ColumnType, RecordSchema

try:
    import pyarrow as pa
except ImportError as error:
    raise MissingExtra("Parquet needs pyarrow: pip install 'workledger[parquet]'", extra="parquet") from error

__all__ = ["Batch", "Batcher", "arrow_schema"]

logger = logging.getLogger(__name__)

# pyarrow comes without types; what these are is said where they are used.
#: A `pyarrow.RecordBatch`.
Batch: TypeAlias = Any
_Array: TypeAlias = Any

_TYPES: Final[dict[ColumnType, Any]] = {
    ColumnType.TEXT: pa.string(),
    ColumnType.INTEGER: pa.int64(),
    ColumnType.NUMBER: pa.float64(),
    ColumnType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    ColumnType.JSON: pa.string(),
}
_DECODED: Final[dict[ColumnType, Any]] = {
    ColumnType.TEXT: str | None,
    ColumnType.INTEGER: int | None,
    ColumnType.NUMBER: float | None,
    ColumnType.TIMESTAMP: str | None,
    ColumnType.JSON: msgspec.Raw,
}
_NULL: Final = b"null"


def arrow_schema(schema: RecordSchema) -> Any:
    """Give the columns of a record type as Arrow has them; only `position` is never null by its type."""
    fields = [
        pa.field(column.name, _TYPES[column.type], nullable=column.name != "position") for column in schema.columns
    ]
    told = {"workledger.record_type": str(schema.record_type), "workledger.schema_version": str(SCHEMA_VERSION)}
    return pa.schema(fields, metadata=told)


class Batcher:
    """Makes record batches of the lines of one record type."""

    def __init__(self, schema: RecordSchema) -> None:
        self.schema = arrow_schema(schema)
        self._columns = schema.columns
        fields = [(column.name, _DECODED[column.type]) for column in schema.columns]
        line = msgspec.defstruct(f"{schema.record_type}_row", fields, frozen=True, gc=False)
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(line).decode
        self._decode_raw: Callable[[bytes], Any] = msgspec.json.Decoder(schema.line_struct()).decode

    def batch(self, lines: Sequence[bytes]) -> Batch:
        """Give the batch of these lines, which are one at least."""
        try:
            rows = [msgspec.structs.astuple(self._decode(line)) for line in lines]
            arrays = [
                _array(column, values) for column, values in zip(self._columns, zip(*rows, strict=True), strict=True)
            ]
        except (msgspec.MsgspecError, pa.ArrowInvalid, OverflowError):
            return self._cell_by_cell(lines)
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _cell_by_cell(self, lines: Sequence[bytes]) -> Batch:
        """Make the batch although some value is not of its column's type."""
        rows = [msgspec.structs.astuple(self._decode_raw(line)) for line in lines]
        arrays = [
            pa.chunked_array([_cell(column, bytes(value)) for value in values], type=_TYPES[column.type])
            for column, values in zip(self._columns, zip(*rows, strict=True), strict=True)
        ]
        return pa.RecordBatch.from_arrays([array.combine_chunks() for array in arrays], schema=self.schema)


def _array(column: Column, values: Sequence[Any]) -> _Array:
    if column.type is ColumnType.JSON:
        return pa.array(
            [None if len(value) == len(_NULL) and bytes(value) == _NULL else bytes(value) for value in values],
            pa.string(),
        )
    if column.type is ColumnType.TIMESTAMP:
        return pa.array(values, pa.string()).cast(_TYPES[column.type])
    return pa.array(values, _TYPES[column.type])


def _cell(column: Column, value: bytes) -> _Array:
    """Give one value as an array of one: a text column takes other JSON as its text, any other takes null."""
    try:
        return _array(column, [msgspec.json.decode(value, type=_DECODED[column.type])])
    except (msgspec.MsgspecError, pa.ArrowInvalid, OverflowError):
        logger.warning("arrow.value_does_not_fit column=%s type=%s", column.name, column.type)
        return pa.array([value if column.type is ColumnType.TEXT else None], _TYPES[column.type])
