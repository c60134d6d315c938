"""Parquet: columns, compressed with zstd. Readable by whatever reads Parquet.

The same lines give the same bytes, however they were divided into writes and whichever version of pyarrow's name
stands in the file: a row group ends where its rows say so, and the footer names us. How pyarrow encodes a page may
change with its version (docs/decisions/0010).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from workledger.training.arrow import Batch, Batcher
from workledger.training.formats._format import FormatWriter, Sink
from workledger.training.records import ColumnType, RecordSchema

__all__ = ["Parquet"]

#: A row group ends with the row that brings it to either.
_GROUP_BYTES: Final = 16 * 1024 * 1024
_GROUP_ROWS: Final = 100_000
_FIXED_CELL_BYTES: Final = 8
#: Columns with few different values.
_REPEATING: Final = frozenset(
    {"event_type", "entity_type", "severity", "schema_version", "task_name", "kind", "status"}
) | {"error_type", "retry_count", "worker_id", "model", "name", "workflow_type", "attempt", "definition_version"}
_MAGIC: Final = b"PAR1"
_LENGTH_BYTES: Final = 4
# In Thrift's compact encoding: a field of type text, its length (under 128), the text.
_CREATOR: Final = re.compile(rb"([\x18\x28])[\x15-\x7f](parquet-cpp-arrow version [0-9A-Za-z.+-]+)")
_CREATED_BY: Final = b"workledger version 1"


class Parquet:
    """Rows in row groups."""

    name = "parquet"

    def head(self, schema: RecordSchema) -> bytes:
        """Give nothing: files are joined row by row, not byte by byte."""
        del schema
        return b""

    def open(self, sink: Sink, schema: RecordSchema) -> FormatWriter:
        """Begin a file."""
        return _Writer(sink, schema)

    def join(self, parts: Iterable[BinaryIO], sink: Sink, schema: RecordSchema) -> None:
        """Write the rows of the parts into one file, cut into row groups anew."""
        writer = _Writer(sink, schema)
        for part in parts:
            file = pq.ParquetFile(part)
            for number in range(file.num_row_groups):
                for batch in file.read_row_group(number).to_batches():
                    writer.take(pa.RecordBatch.from_arrays(batch.columns, schema=writer.schema))
        writer.close()


class _Writer:
    def __init__(self, sink: Sink, schema: RecordSchema) -> None:
        self._batcher = Batcher(schema)
        self.schema = self._batcher.schema
        self._text = [
            number for number, column in enumerate(schema.columns) if column.type in {ColumnType.TEXT, ColumnType.JSON}
        ]
        self._fixed_bytes = _FIXED_CELL_BYTES * (len(schema.columns) - len(self._text))
        self._file = _File(sink)
        self._parquet = pq.ParquetWriter(self._file, self.schema, **_options(schema))
        self._parquet.add_key_value_metadata(dict(self.schema.metadata))
        self._waiting: list[Batch] = []
        self._rows = 0
        self._bytes = 0

    def write(self, lines: Sequence[bytes]) -> None:
        """Add the rows of these lines."""
        if lines:
            self.take(self._batcher.batch(lines))

    def take(self, batch: Batch) -> None:
        """Add rows; a group that has become full is written."""
        start = 0
        for end in self._ends(batch):
            self._waiting.append(batch.slice(start, end - start))
            self._write_group()
            start = end
        if start < batch.num_rows:
            self._waiting.append(batch.slice(start))

    def close(self) -> None:
        """Write the last group and the footer."""
        self._write_group()
        self._file.hold()
        self._parquet.close()
        self._file.let_go()

    def __del__(self) -> None:
        # A file that was given up is closed by pyarrow when it is collected; its owner has closed the sink by then.
        if hasattr(self, "_file"):
            self._file.hold()

    def _ends(self, batch: Batch) -> Iterator[int]:
        """Count the rows in, and give the number of those after which a group ends."""
        sizes = self._sizes(batch)
        total = pc.call_function("sum", [sizes]).as_py()
        if self._bytes + total < _GROUP_BYTES and self._rows + batch.num_rows < _GROUP_ROWS:
            self._bytes, self._rows = self._bytes + total, self._rows + batch.num_rows
            return
        for number, size_bytes in enumerate(sizes.to_pylist(), start=1):
            self._bytes, self._rows = self._bytes + size_bytes, self._rows + 1
            if self._bytes >= _GROUP_BYTES or self._rows >= _GROUP_ROWS:
                yield number
                self._bytes = self._rows = 0

    def _sizes(self, batch: Batch) -> Any:
        """Give the size of each row: that of its text, and eight bytes for any other cell."""
        sizes = pa.repeat(pa.scalar(self._fixed_bytes, pa.int64()), batch.num_rows)
        for number in self._text:
            length = pc.call_function("binary_length", [batch.column(number)])
            sizes = pc.call_function("add", [sizes, pc.fill_null(length, 0).cast(pa.int64())])
        return sizes

    def _write_group(self) -> None:
        if self._waiting:
            # One chunk a column: pages end where the rows say so, not where writes did.
            table = pa.Table.from_batches(self._waiting, schema=self.schema).combine_chunks()
            self._waiting.clear()
            self._parquet.write_table(table, row_group_size=table.num_rows)


class _File:
    """What pyarrow takes for a file. The end is held back, to be let go with our name in it."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._at = 0
        self._held: list[bytes] | None = None
        self.closed = False

    def write(self, data: bytes, /) -> int:
        held = bytes(data)
        self._at += len(held)
        if self._held is None:
            self._sink.write(held)
        else:
            self._held.append(held)
        return len(held)

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """The sink is its owner's to close."""

    def hold(self) -> None:
        if self._held is None:
            self._held = []

    def let_go(self) -> None:
        self._sink.write(_signed(b"".join(self._held or ())))


def _options(schema: RecordSchema) -> dict[str, Any]:
    """Everything that moves a byte, said once and for all."""
    names = [column.name for column in schema.columns]
    counting = {ColumnType.INTEGER, ColumnType.TIMESTAMP}
    repeating = [name for name in names if name in _REPEATING]
    return {
        "version": "2.6",
        "data_page_version": "1.0",
        "compression": "zstd",
        "compression_level": 3,
        "use_dictionary": repeating,
        "column_encoding": {
            column.name: "DELTA_BINARY_PACKED"
            for column in schema.columns
            if column.type in counting and column.name not in repeating
        },
        # The smallest and largest JSON text helps nobody, and repeats what a line says in the footer.
        "write_statistics": [column.name for column in schema.columns if column.type is not ColumnType.JSON],
        "store_schema": False,
    }


def _signed(tail: bytes) -> bytes:
    """Put our name in the place of pyarrow's and of its version."""
    found = [one for one in _CREATOR.finditer(tail) if tail[one.start() + 1] == len(one[2])]
    if not found:
        return tail
    creator = found[-1]
    ours = creator[1] + bytes([len(_CREATED_BY)]) + _CREATED_BY
    old = int.from_bytes(tail[-_LENGTH_BYTES - len(_MAGIC) : -len(_MAGIC)], "little")
    length = old - len(creator[0]) + len(ours)
    footer = tail[: creator.start()] + ours + tail[creator.end() : -_LENGTH_BYTES - len(_MAGIC)]
    return footer + length.to_bytes(_LENGTH_BYTES, "little") + _MAGIC
