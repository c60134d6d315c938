"""Rows of a lake's table compared with the lines that the log gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from workledger.training.lake import LakeTable, lake_batches, lake_schema
from workledger.training.records import RecordType

__all__ = ["RowFault", "differences"]

#: The position it is about, or None when it is about the whole table; and what is wrong.
RowFault = tuple[int | None, str]


def differences(
    table: LakeTable, record_type: RecordType, lines: Sequence[bytes], *, first: int, last: int
) -> tuple[int, list[RowFault]]:
    """Give how many rows a table has of these positions, and where they are not what the lines say."""
    schema = lake_schema(record_type)
    wanted = pa.Table.from_batches(lake_batches(record_type, [lines]) if lines else (), schema=schema)
    found = table.rows(first, last)
    if missing := sorted(set(schema.names) - set(found.column_names)):
        return found.num_rows, [(None, f"the table lacks the columns {', '.join(missing)}")]
    found = found.select(schema.names).cast(schema)
    return found.num_rows, [] if found.equals(wanted) else list(_named(found, wanted))


def _named(found: Any, wanted: Any) -> Iterator[RowFault]:
    times = Counter(found["position"].to_pylist())
    expected = set(wanted["position"].to_pylist())
    for position in sorted(times.keys() | expected):
        if position not in expected:
            yield position, "does not belong here: the log has no such row"
        elif times[position] != 1:
            yield position, f"is there {times[position]} times" if times[position] else "is missing"
        elif told := _told(_row(found, position), _row(wanted, position)):
            yield position, f"differs from the log: {'; '.join(told)}"


def _told(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    return [f"{name} is {ours[name]!r}, the log says {theirs[name]!r}" for name in theirs if ours[name] != theirs[name]]


def _row(table: Any, position: int) -> dict[str, Any]:
    return table.filter(pc.field("position") == position).to_pylist()[0]
