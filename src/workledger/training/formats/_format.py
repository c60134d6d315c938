"""What a file format is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from workledger.training.records import RecordSchema

__all__ = ["Format", "FormatWriter", "Sink"]


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
