"""What a training store lacks, refilled from the log; what is right is left alone.

Lines are functions of the log, so that what is written again is, byte for byte, what had been there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from workledger.errors import StoreCorrupted, Unavailable
from workledger.flows.mount import mounted_if_behind
from workledger.flows.verify_training import TrainingReport, verify_training
from workledger.postgres.connection import Connection
from workledger.training import formats
from workledger.training.deriver import Deriver
from workledger.training.log_lines import LogLines
from workledger.training.manifest import Entry, entry_path, tiling
from workledger.training.shard_store import Rewriter, ShardReader, ShardStore
from workledger.training.shards import OpenShard, ShardFile, range_of

__all__ = ["Repaired", "damaged_ranges", "repair", "verify_and_repair"]

_PAGE: Final = 2000
_CHUNK_BYTES: Final = 1024 * 1024

Progress = Callable[[int, int], None]
Range = tuple[int, int]


@dataclass(slots=True, kw_only=True)
class Repaired:
    """What was put right: files that were written again, entries of the manifest, files that belonged to nothing."""

    files: list[str] = field(default_factory=list[str])
    entries: list[str] = field(default_factory=list[str])
    removed: list[str] = field(default_factory=list[str])

    def __bool__(self) -> bool:
        return bool(self.files or self.entries or self.removed)

    def add(self, other: Repaired) -> None:
        """Take in what was put right later."""
        self.files += other.files
        self.entries += other.entries
        self.removed += other.removed


def verify_and_repair(
    connection: Connection, store: ShardStore, *, on_progress: Progress | None = None
) -> tuple[TrainingReport, Repaired]:
    """Compare a store with the log, refill what is not right, and compare again, until nothing more can be mended.

    Gives what is still wrong, and what was put right.
    """
    with mounted_if_behind(connection, 0):
        return _until_nothing_more(connection, store, on_progress)


def _until_nothing_more(
    connection: Connection, store: ShardStore, on_progress: Progress | None
) -> tuple[TrainingReport, Repaired]:
    repaired = Repaired()
    while True:
        report = verify_training(connection, store, on_progress=on_progress)
        if report.ok:
            return report, repaired
        named = {found for finding in report.findings if (found := _range_in(finding.location)) is not None}
        named &= set(store.all_ranges())
        done = repair(connection, store, damaged={*damaged_ranges(store), *named})
        if not done:
            return report, repaired
        repaired.add(done)


def damaged_ranges(store: ShardReader) -> list[Range]:
    """Give the ranges whose entry or files are missing or not what the manifest says, in order.

    This looks at the store alone; `verify_training` also finds what was altered together with its manifest.
    Raises `StoreCorrupted` where ranges overlap.
    """
    ranges, _ = tiling(store.all_ranges())
    return sorted([*_missing(store, ranges), *(found for found in ranges if not _is_sound(store, found))])


def repair(
    connection: Connection,
    store: ShardStore,
    *,
    damaged: Iterable[Range] | None = None,
    on_progress: Progress | None = None,
) -> Repaired:
    """Refill from the log exactly what is missing or altered, and leave alone what is right.

    `damaged` are ranges that something is wrong with; without it, those that `damaged_ranges` finds. The files of
    such a range are made again and compared: only those that differ take the place of what was there. Files that
    belong to no range are removed where nobody else can be writing them.
    """
    wanted = damaged_ranges(store) if damaged is None else sorted(set(damaged))
    repaired = Repaired()
    with mounted_if_behind(connection, 0), store.rewriting() as rewriter:
        if rewriter is None:
            raise Unavailable(f"the training store {store.name} is being rewritten by another process")
        for number, found in enumerate(wanted, start=1):
            _refill(LogLines(connection), store, rewriter, found, repaired)
            if on_progress is not None:
                on_progress(number, len(wanted))
        if rewriter.alone:
            repaired.removed = _strays(store)
            rewriter.remove(repaired.removed)
    return repaired


def _missing(store: ShardReader, ranges: Sequence[Range]) -> list[Range]:
    """Give the ranges between those that have an entry: as their files are named, or else each gap as one."""
    found: list[Range] = []
    end = 0
    named = sorted({covered for path in store.paths() if (covered := _covered(path)) is not None})
    for first, last in ranges:
        if first <= end:
            raise StoreCorrupted(f"the ranges of {first} and of {end} overlap", location=entry_path(first, last))
        if first > end + 1:
            inside = [one for one in named if end < one[0] and one[1] < first]
            tiles = not tiling([(one[0] - end, one[1] - end) for one in inside])[1]
            found += inside if inside and tiles and inside[-1][1] == first - 1 else [(end + 1, first - 1)]
        end = last
    return found


def _covered(path: str) -> Range | None:
    return None if path.startswith("_manifest/") else range_of(path.rpartition("/")[2])


def _is_sound(store: ShardReader, found: Range) -> bool:
    try:
        entry = store.entry(*found)
        names = {file.format for file in entry.files}
        listed = {(file.record_type, file.format) for file in entry.files}
        wanted = {(record_type, name) for record_type, rows in entry.rows.items() if rows for name in names}
        return (
            (entry.first, entry.last) == found
            and listed == wanted
            and all(_is_whole(store, one) for one in entry.files)
        )
    except StoreCorrupted:
        return False


def _is_whole(store: ShardReader, file: ShardFile) -> bool:
    """Say whether a file is there and what the manifest says."""
    digest = hashlib.sha256()
    with store.open(file) as shard:
        while chunk := shard.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest() == file.sha256


def _refill(log: LogLines, store: ShardStore, rewriter: Rewriter, found: Range, repaired: Repaired) -> None:
    first, last = found
    shard = OpenShard(rewriter.folder, formats=_formats(store, found))
    try:
        last_event_id = log.event_id(last)
        if last_event_id is None:
            raise StoreCorrupted(f"the log has no position {last}", location=entry_path(first, last))
        # A deriver of its own: it may keep only what it has seen without a gap.
        deriver = Deriver(log)
        for page in log.iterate(after=first - 1, upto=last, page=_PAGE):
            for record_type, lines in deriver.derive(page):
                shard.write(record_type, lines)
        rows, sealed = shard.rows(), list(shard.seal(first, last))
        for temporary, file in sealed:
            _put_right(store, rewriter, temporary, file, repaired)
    finally:
        shard.discard()
    files = [file for _, file in sealed]
    entry = Entry(first=first, last=last, last_event_id=last_event_id, rows=rows, files=files)
    if store.document(entry.path) != entry.encoded():
        rewriter.remove([entry.path])
        repaired.entries.append(entry.path)
        rewriter.publish(entry)


def _formats(store: ShardStore, found: Range) -> list[formats.Format]:
    """Give the formats that a range is in; those of the store where its entry cannot say."""
    try:
        names = sorted({file.format for file in store.entry(*found).files})
    except StoreCorrupted:
        names = sorted({Path(path).suffix[1:] for path in store.paths() if _covered(path) == found})
    known = [formats.named(name) for name in names if name in formats.NAMES]
    return known or list(store.formats)


def _put_right(store: ShardStore, rewriter: Rewriter, temporary: Path, file: ShardFile, repaired: Repaired) -> None:
    try:
        sound = _is_whole(store, file)
    except StoreCorrupted:
        sound = False
    if not sound:
        rewriter.remove([file.path])
        rewriter.place(temporary, file)
        repaired.files.append(file.path)


def _strays(store: ShardStore) -> list[str]:
    """Give the files up to the end of the store that no entry names."""
    position = store.position()
    entries = {
        found
        for path in store.paths()
        if path.startswith("_manifest/") and (found := range_of(path.rpartition("/")[2]))
    }
    return [
        path
        for path in store.paths()
        if (covered := _covered(path)) is not None and covered not in entries and covered[1] <= position
    ]


def _range_in(location: str) -> Range | None:
    """Give the range that a finding is about; its location is a path, maybe with the number of a line."""
    return range_of(location.partition(":")[0].rpartition("/")[2])
