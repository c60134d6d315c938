"""JSON Lines: each record one JSON object and a newline, in UTF-8. The truth, of which other formats are copies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import BinaryIO

from workledger.training.formats._format import FormatWriter, Sink, join_text
from workledger.training.records import RecordSchema

__all__ = ["Jsonl"]


class Jsonl:
    """Lines as they are."""

    name = "jsonl"

    def head(self, schema: RecordSchema) -> bytes:
        """Give nothing: a file begins with its first line."""
        del schema
        return b""

    def open(self, sink: Sink, schema: RecordSchema) -> FormatWriter:
        """Begin a file; it has no head."""
        del schema
        return _Writer(sink)

    def join(self, parts: Iterable[BinaryIO], sink: Sink, schema: RecordSchema) -> None:
        """Write the lines of the parts one after another."""
        join_text(parts, sink, head=self.head(schema))


class _Writer:
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, lines: Sequence[bytes]) -> None:
        if lines:
            self._sink.write(b"\n".join([*lines, b""]))

    def close(self) -> None:
        """Nothing belongs at the end."""
