"""CSV by RFC 4180: the flat copy. UTF-8, a header, CRLF; nested values as JSON text.

Null is an empty field; empty text is a quoted empty field, `""`. PostgreSQL (`COPY … CSV`) and DuckDB
(`allow_quoted_nulls = false`) read the difference; pandas takes both for missing. The null of a JSON column is an
empty field too, any other value is its JSON text: the text `a` of a JSON column is `"a"` with its quotes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from workledger.training.formats._format import FormatWriter, Sink
from workledger.training.records import ColumnType, RecordSchema

__all__ = ["Csv"]

_NULL: Final = b"null"
_needs_quotes = re.compile(rb'[",\r\n]').search
_decode_text = msgspec.json.Decoder(str).decode


class Csv:
    """One row a line."""

    name = "csv"

    def head(self, schema: RecordSchema) -> bytes:
        """Give the names of the columns."""
        return ",".join(column.name for column in schema.columns).encode() + b"\r\n"

    def open(self, sink: Sink, schema: RecordSchema) -> FormatWriter:
        """Begin a file with the names of the columns."""
        sink.write(self.head(schema))
        return _Writer(sink, schema)


class _Writer:
    def __init__(self, sink: Sink, schema: RecordSchema) -> None:
        self._sink = sink
        self._decode = msgspec.json.Decoder(schema.line_struct()).decode
        self._fields: list[Callable[[bytes], bytes]] = [_FIELD[column.type] for column in schema.columns]

    def write(self, lines: Sequence[bytes]) -> None:
        if lines:
            self._sink.write(b"\r\n".join([*map(self._row, lines), b""]))

    def close(self) -> None:
        """Nothing belongs at the end."""

    def _row(self, line: bytes) -> bytes:
        values = msgspec.structs.astuple(self._decode(line))
        return b",".join([field(bytes(value)) for field, value in zip(self._fields, values, strict=True)])


def _text(value: bytes) -> bytes:
    if value == _NULL:
        return b""
    text = value[1:-1] if b"\\" not in value else _decode_text(value).encode()
    return _quoted(text) if not text or _needs_quotes(text) else text


def _json(value: bytes) -> bytes:
    if value == _NULL:
        return b""
    return _quoted(value) if _needs_quotes(value) else value


def _plain(value: bytes) -> bytes:
    return b"" if value == _NULL else value


def _quoted(text: bytes) -> bytes:
    return b'"' + text.replace(b'"', b'""') + b'"'


_FIELD: Final[dict[ColumnType, Callable[[bytes], bytes]]] = {
    ColumnType.TEXT: _text,
    ColumnType.INTEGER: _plain,
    ColumnType.NUMBER: _plain,
    ColumnType.TIMESTAMP: _text,
    ColumnType.JSON: _json,
}
