"""Columns of Arrow as lines again: the way back from `training.arrow`.

Every value is that of the line the columns were made of; numbers may be written in another way (2.50 as 2.5).
"""

from __future__ import annotations

from typing import Any, Final

import orjson
import pyarrow.compute as pc

from workledger.training.arrow import Batch
from workledger.training.records import Column, ColumnType, RecordSchema

__all__ = ["lines_of_batch"]

_NULL: Final = orjson.Fragment(b"null")


def lines_of_batch(batch: Batch, schema: RecordSchema) -> list[bytes]:
    """Give the lines of a batch, in its order."""
    names = [column.name for column in schema.columns]
    cells = [_cells(batch.column(column.name), column) for column in schema.columns]
    return [orjson.dumps(dict(zip(names, row, strict=True))) for row in zip(*cells, strict=True)]


def _cells(values: Any, column: Column) -> list[Any]:
    if column.type is ColumnType.TIMESTAMP:
        return pc.call_function("strftime", [values], pc.StrftimeOptions("%Y-%m-%dT%H:%M:%SZ")).to_pylist()
    if column.type is ColumnType.JSON:
        return [_NULL if text is None else orjson.Fragment(text) for text in values.to_pylist()]
    return values.to_pylist()
