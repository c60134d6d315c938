"""CSV as PostgreSQL copies it, to Arrow and back: nothing of a row passes through Python."""

from __future__ import annotations

import io
from typing import Any

from workledger.errors import MissingExtra

try:
    import pyarrow as pa
    import pyarrow.csv as pa_csv
except ImportError as error:
    raise MissingExtra("the archive needs pyarrow: pip install 'workledger[parquet]'", extra="parquet") from error

__all__ = ["read_csv", "write_csv"]


def read_csv(data: bytes, schema: Any) -> Any:
    """Read what PostgreSQL writes as CSV: no escapes but doubled quotes; NULL is empty, empty text is quoted."""
    return pa_csv.read_csv(
        pa.BufferReader(data),
        read_options=pa_csv.ReadOptions(column_names=list(schema.names), use_threads=False, block_size=len(data) + 1),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict(zip(schema.names, schema.types, strict=True)),
            null_values=[""],
            true_values=["t"],
            false_values=["f"],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


def write_csv(table: Any) -> bytes:
    """Write an Arrow table as CSV that PostgreSQL reads: NULL is empty, text is quoted."""
    sink = io.BytesIO()
    pa_csv.write_csv(table, sink, pa_csv.WriteOptions(include_header=False))
    return sink.getvalue()
