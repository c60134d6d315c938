"""CSV by RFC 4180: the flat copy. UTF-8, a header, CRLF; nested values as JSON text.

Null is an empty field; empty text is a quoted empty field, `""`. PostgreSQL (`COPY … CSV`) and DuckDB
(`allow_quoted_nulls = false`) read the difference; pandas takes both for missing. The null of a JSON column is an
empty field too, any other value is its JSON text: the text `a` of a JSON column is `"a"` with its quotes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO, Final

import msgspec

from workledger.training.formats._format import FormatWriter, Sink, join_text
from workledger.training.records import ColumnType, RecordSchema

__all__ = ["Csv"]

_NULL: Final = b"null"
_is_plain_text = re.compile(rb'"[^"\\,\r\n]+"').fullmatch
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

    def join(self, parts: Iterable[BinaryIO], sink: Sink, schema: RecordSchema) -> None:
        """Write the lines of the parts one after another."""
        join_text(parts, sink, head=self.head(schema))


class _Writer:
    def __init__(self, sink: Sink, schema: RecordSchema) -> None:
        self._sink = sink
        self._decode = msgspec.json.Decoder(schema.line_struct()).decode
        self._fields = [_FIELDS[column.type] for column in schema.columns]

    def write(self, lines: Sequence[bytes]) -> None:
        """Add rows. Columns are written one after another: a loop over one kind of value is a tight one."""
        if not lines:
            return
        columns = zip(*[msgspec.structs.astuple(self._decode(line)) for line in lines], strict=True)
        fields = [
            write([bytes(value) for value in column]) for write, column in zip(self._fields, columns, strict=True)
        ]
        self._sink.write(b"\r\n".join([*map(b",".join, zip(*fields, strict=True)), b""]))

    def close(self) -> None:
        """Nothing belongs at the end."""


def _texts(values: list[bytes]) -> list[bytes]:
    return [value[1:-1] if _is_plain_text(value) else _text(value) for value in values]


def _text(value: bytes) -> bytes:
    if value == _NULL:
        return b""
    text = value[1:-1] if b"\\" not in value else _decode_text(value).encode()
    return _quoted(text) if not text or _needs_quotes(text) else text


def _jsons(values: list[bytes]) -> list[bytes]:
    return [b"" if value == _NULL else value if not _needs_quotes(value) else _quoted(value) for value in values]


def _plains(values: list[bytes]) -> list[bytes]:
    return [b"" if value == _NULL else value for value in values]


def _quoted(text: bytes) -> bytes:
    return b'"' + text.replace(b'"', b'""') + b'"'


_FIELDS: Final[dict[ColumnType, Callable[[list[bytes]], list[bytes]]]] = {
    ColumnType.TEXT: _texts,
    ColumnType.INTEGER: _plains,
    ColumnType.NUMBER: _plains,
    ColumnType.TIMESTAMP: _texts,
    ColumnType.JSON: _jsons,
}
