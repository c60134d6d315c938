"""The manifest: which ranges a store has, and what is in their files. Progress lives here, with the data.

One entry a range, `_manifest/000000000001-000000000500.json`, is created once its files are on the disk and never
changed. An entry counts unless another one's range contains its own: that one was compacted out of it. The entries
that count cover the positions from 1 on without gap or overlap, and the end of the last is where a writer goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from workledger.errors import SchemaError, StoreCorrupted
from workledger.training.records import SCHEMA_VERSION, RecordType
from workledger.training.shards import ShardFile, range_name

__all__ = ["MANIFEST_VERSION", "Entry", "entry_path", "latest", "read_entry", "tiled", "tiling"]

MANIFEST_VERSION: Final = 1


def entry_path(first: int, last: int) -> str:
    """Give where the entry of a range is in its store."""
    return f"_manifest/{range_name(first, last)}.json"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One range. `last_event_id` is that of the event at `last`: it tells whether this is still the same log."""

    manifest_version: int = MANIFEST_VERSION
    schema_version: int = SCHEMA_VERSION
    first: int
    last: int
    last_event_id: str
    rows: dict[RecordType, int]
    files: list[ShardFile]

    @property
    def path(self) -> str:
        """Where the entry is in its store."""
        return entry_path(self.first, self.last)

    def encoded(self) -> bytes:
        """Give the entry as the file that holds it; the same range of the same log gives the same bytes."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    def files_of(self, format_name: str) -> Mapping[RecordType, ShardFile]:
        """Give the files of one format by record type; types without a line have none."""
        return {file.record_type: file for file in self.files if file.format == format_name}


_decode = msgspec.json.Decoder(Entry).decode


def read_entry(data: bytes, *, location: str) -> Entry:
    """Read an entry, or raise `StoreCorrupted`; `SchemaError` when a newer version of Workledger wrote it."""
    try:
        entry = _decode(data)
    except msgspec.MsgspecError as error:
        raise StoreCorrupted(f"{location} is not a manifest entry: {error}", location=location) from error
    _check_version(entry.schema_version, entry.manifest_version, location)
    return entry


def tiling(ranges: Iterable[tuple[int, int]]) -> tuple[list[tuple[int, int]], list[StoreCorrupted]]:
    """Give the ranges that count, in order, and what is wrong with them: each gap and each overlap."""
    counting: list[tuple[int, int]] = []
    faults: list[StoreCorrupted] = []
    end = 0
    for first, last in sorted(ranges, key=lambda found: (found[0], -found[1])):
        if counting and last <= end:
            continue
        if first != end + 1:
            what = "overlap" if first <= end else "leave a gap"
            message = f"the ranges of the manifest {what}: after position {end} comes {range_name(first, last)}"
            faults.append(StoreCorrupted(message, location=entry_path(first, last)))
        counting.append((first, last))
        end = last
    return counting, faults


def tiled(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Give the ranges that count, in order. Raises `StoreCorrupted` where they leave a gap or overlap."""
    counting, faults = tiling(ranges)
    if faults:
        raise faults[0]
    return counting


class ListedRange(msgspec.Struct, frozen=True, kw_only=True):
    """What the summary says about a range; `manifest` is where its entry is."""

    first: int
    last: int
    rows: dict[RecordType, int]
    manifest: str


class Latest(msgspec.Struct, frozen=True, kw_only=True):
    """The summary for people and readers, `latest.json`: how far the store is, and the ranges to read, in order.

    Whoever reads by it sees every position once. In a bucket it is also what decides: a range counts from the moment
    when the summary that names it takes the place of the one before.
    """

    manifest_version: int = MANIFEST_VERSION
    schema_version: int = SCHEMA_VERSION
    position: int = 0
    formats: list[str] = []
    rows: dict[RecordType, int] = msgspec.field(default_factory=lambda: dict.fromkeys(RecordType, 0))
    ranges: list[ListedRange] = []

    def encoded(self) -> bytes:
        """Give the summary as the file that holds it."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def listed(entry: Entry) -> ListedRange:
    """Give what the summary says about an entry."""
    return ListedRange(first=entry.first, last=entry.last, rows=entry.rows, manifest=entry.path)


def latest(ranges: Iterable[ListedRange], *, formats: Iterable[str]) -> Latest:
    """Give the summary of these ranges, which are in order."""
    known = list(ranges)
    rows = {record_type: sum(one.rows[record_type] for one in known) for record_type in RecordType}
    return Latest(position=known[-1].last if known else 0, formats=list(formats), rows=rows, ranges=known)


_decode_latest = msgspec.json.Decoder(Latest).decode


def read_latest(data: bytes, *, location: str) -> Latest:
    """Read a summary, or raise `StoreCorrupted`; `SchemaError` when a newer version of Workledger wrote it."""
    try:
        summary = _decode_latest(data)
    except msgspec.MsgspecError as error:
        raise StoreCorrupted(f"{location} is not a summary of a manifest: {error}", location=location) from error
    _check_version(summary.schema_version, summary.manifest_version, location)
    return summary


def _check_version(schema_version: int, manifest_version: int, location: str) -> None:
    if schema_version > SCHEMA_VERSION or manifest_version > MANIFEST_VERSION:
        raise SchemaError(f"{location} was written by a newer version of Workledger; upgrade this one")
