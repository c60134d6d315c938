"""What is archived: files that hold what the database held, and what they give back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, BinaryIO, Protocol

import msgspec

from workledger.model.payload import Blob
from workledger.model.records import Event

__all__ = [
    "ArchiveAccess",
    "ArchiveFile",
    "EnvelopeArchive",
    "Envelopes",
    "EventArchive",
    "EventColumns",
    "SentColumns",
    "Wanted",
]


class ArchiveFile(msgspec.Struct, frozen=True):
    """One file of the archive: its row in `archives`."""

    name: str
    kind: str
    source: str
    url: str
    sha256: bytes
    size_bytes: int
    rows: int
    first_position: int | None
    last_position: int | None
    first_time: datetime | None
    last_time: datetime | None
    erased: int
    format_version: int
    event_id: str
    archived_at: datetime
    removed_at: datetime | None


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which events are wanted; what is None does not matter."""

    event_type: str | None = None
    entity_type: str | None = None
    entity_id: str | None = None
    workflow_id: str | None = None


class SentColumns(msgspec.Struct, frozen=True):
    """A stretch of events by column, as PostgreSQL sends them.

    Positions, instants and versions are big-endian numbers of 8, 8 and 2 bytes; instants are microseconds since
    2000-01-01 UTC. Ids and salts are 36 characters each, one after the other; so are the texts, whose `…_sizes` say how
    many bytes each has, in 4 bytes, -1 for none.
    """

    position: bytes
    event_id: bytes
    event_type: bytes
    event_type_sizes: bytes
    entity_type: bytes
    entity_type_sizes: bytes
    entity_id: bytes
    entity_id_sizes: bytes
    workflow_id: bytes
    workflow_id_sizes: bytes
    severity: bytes
    severity_sizes: bytes
    created_at: bytes
    recorded_at: bytes
    schema_version: bytes
    salt: bytes
    payload: bytes
    payload_sizes: bytes


class EventColumns(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of events by column; instants are text to the microsecond, in UTC."""

    position: Sequence[int]
    event_id: Sequence[str]
    event_type: Sequence[str]
    entity_type: Sequence[str | None]
    entity_id: Sequence[str | None]
    workflow_id: Sequence[str | None]
    severity: Sequence[str | None]
    created_at: Sequence[str]
    recorded_at: Sequence[str]
    schema_version: Sequence[int]
    salt: Sequence[str]
    payload: Sequence[bytes | None]


class Envelopes(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of events, in order, as their digests are made of them.

    `rests` has the canonical JSON of each envelope without its first member, the commitment: from the quote that ends
    that to the end. It is empty where some text needs an escape; then the digests are made of `EventColumns`. `salts`
    are 16 bytes an event. `workflows` are the workflows of these events with their first and last position here,
    `digests` the stored payloads that they refer to.
    """

    position: Sequence[int]
    event_id: Sequence[str]
    salts: bytes
    payload: Sequence[bytes | None]
    rests: Sequence[bytes]
    workflows: Sequence[tuple[str, int, int]]
    digests: frozenset[bytes]


class EventArchive(Protocol):
    """The events of one file. They come in the order of the log; only those after `after` and up to `upto`.

    Raises `StoreCorrupted` when the file cannot be read as what it says it is, and `Unavailable` when it cannot be
    reached.
    """

    def events(self, *, after: int, upto: int, wanted: Wanted, newest_first: bool = False) -> Iterator[Event]:
        """Give the events that are wanted."""
        ...

    def lines(self, *, after: int, upto: int) -> Iterator[tuple[int, bytes]]:
        """Give each event as its position and its line of JSON, as PostgreSQL writes it."""
        ...

    def over_time(self, *, from_id: str, before_id: str, event_type: str | None) -> Iterator[Event]:
        """Give the events with ids from one up to, but without, another, in the order of their ids."""
        ...

    def columns(self, *, after: int, upto: int) -> Iterator[EventColumns]:
        """Give the events by column, a stretch at a time."""
        ...


class EnvelopeArchive(Protocol):
    """The same file, for who compares it with its seals."""

    def envelopes(self, *, after: int, upto: int) -> Iterator[Envelopes]:
        """Give the events as their digests are made of them, a stretch at a time."""
        ...

    def columns(self, *, after: int, upto: int) -> Iterator[EventColumns]:
        """Give the events by column, a stretch at a time."""
        ...


class ArchiveAccess(Protocol):
    """Opens files of the archive for whoever reads over a connection. Used by one thread at a time."""

    def open(self, archive: ArchiveFile) -> BinaryIO:
        """Open a file to read and to seek in it; the caller closes it."""
        ...

    def events(self, archive: ArchiveFile) -> EventArchive:
        """Give the events of a file; it stays open as long as it is in use."""
        ...

    def payloads(self, archive: ArchiveFile, digests: Iterable[bytes]) -> dict[bytes, Blob]:
        """Give large values of a file by digest; one that it does not have is left out."""
        ...

    def rows(self, archive: ArchiveFile, column: str, values: Iterable[str]) -> list[dict[str, Any]]:
        """Give the rows of a file of state that have one of these values in a column; JSON and arrays are text."""
        ...
