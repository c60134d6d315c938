"""What a file format is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import BinaryIO, Final, Protocol

from workledger.errors import StoreCorrupted
from workledger.training.records import RecordSchema

__all__ = ["Format", "FormatWriter", "Sink", "join_text"]

_CHUNK_BYTES: Final = 1024 * 1024


class Sink(Protocol):
    """Where the bytes of a file go."""

    def write(self, data: bytes, /) -> object:
        """Take all of `data`."""
        ...


class FormatWriter(Protocol):
    """Writes the lines of one file, in the order given."""

    def write(self, lines: Sequence[bytes]) -> None:
        """Add lines: each one JSON object without a newline, with the columns of the schema in their order."""
        ...

    def close(self) -> None:
        """Write what belongs at the end of the file. The sink is its owner's to close."""
        ...


class Format(Protocol):
    """A way of writing lines. The same lines give the same bytes, however they were divided into writes."""

    @property
    def name(self) -> str:
        """What URLs and manifests call it; also the suffix of its files."""
        ...

    def head(self, schema: RecordSchema) -> bytes:
        """Give what every file begins with, so that files can be joined; nothing for many formats."""
        ...

    def open(self, sink: Sink, schema: RecordSchema) -> FormatWriter:
        """Begin a file."""
        ...

    def join(self, parts: Iterable[BinaryIO], sink: Sink, schema: RecordSchema) -> None:
        """Write one file of several, in their order: the bytes that it would have if it had been written at once."""
        ...


def join_text(parts: Iterable[BinaryIO], sink: Sink, *, head: bytes) -> None:
    """Join files that are a head and lines."""
    sink.write(head)
    for part in parts:
        if part.read(len(head)) != head:
            raise StoreCorrupted("a file does not begin as files of its format do", location=getattr(part, "name", ""))
        while chunk := part.read(_CHUNK_BYTES):
            sink.write(chunk)
