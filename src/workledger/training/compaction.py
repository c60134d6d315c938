"""Small adjacent ranges made into large ones, while others land and read.

Landing every two seconds makes many small files. The ranges of a block of `block_rows` positions, which is what landing
fills a shard with, end up as one, byte for byte what landing the block at once would have written; while a block is
being filled, runs of sixteen are joined, and those again, so that no position is rewritten more than a few times.

Nobody sees a position twice or not at all: the joined files are whole before the entry that names them makes them
count, in place of those it covers, at one moment. What was replaced stays for whoever is reading it, and is removed
after a time of grace. Whatever is interrupted leaves files that no entry names, which the next compaction removes.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import BinaryIO, Final

from workledger.errors import StoreCorrupted
from workledger.training import formats
from workledger.training.manifest import Entry, entry_path
from workledger.training.records import SCHEMA_VERSION, SCHEMAS, RecordType
from workledger.training.shard_store import Rewriter, ShardReader, ShardStore, ranges_of
from workledger.training.shards import NewFile, ShardFile, range_of, shard_file

__all__ = ["GRACE_S", "Compacted", "compact", "merge", "opened", "plan", "sweep"]

logger = logging.getLogger(__name__)

#: So long what was replaced stays for those who read it.
GRACE_S: Final = 3600.0
_FAN_IN: Final = 16
_CHUNK_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    """What a compaction did: ranges that were joined, those they became, and files that were removed."""

    joined: int = 0
    made: int = 0
    removed: int = 0


def compact(
    store: ShardStore,
    *,
    block_rows: int,
    whole: bool = False,
    grace_s: float = GRACE_S,
    on_joined: Callable[[int], None] = lambda _ranges: None,
) -> Compacted:
    """Join what can be joined, then remove what was replaced at least `grace_s` ago.

    With `whole`, the ranges of the last block are joined as well, however few they are. Does nothing while somebody
    else rewrites the store. `on_joined` hears how many ranges have been joined.
    """
    joined = made = removed = 0
    with store.rewriting() as rewriter:
        if rewriter is None:
            return Compacted()
        while groups := plan(store.entries(), block_rows=block_rows, whole=whole):
            for group in groups:
                merge(store, rewriter, group)
                joined, made = joined + len(group), made + 1
                on_joined(joined)
        removed = sweep(store, rewriter, grace_s=grace_s)
    return Compacted(joined=joined, made=made, removed=removed)


def plan(entries: Sequence[Entry], *, block_rows: int, whole: bool = False) -> list[list[Entry]]:
    """Give the runs of adjacent entries to be joined, each inside of one block; entries are in order."""
    position = entries[-1].last if entries else 0
    groups: list[list[Entry]] = []
    for (block, alike), run in groupby(entries, key=lambda entry: (_block(entry, block_rows), _likeness(entry))):
        members = list(run)
        if block is None or alike is None:
            continue
        if whole or position >= (block + 1) * block_rows:
            groups += [members] if len(members) > 1 else []
        else:
            groups += _tiers(members, block_rows)
    return groups


def merge(store: ShardReader, rewriter: Rewriter, group: Sequence[Entry]) -> Entry:
    """Put one range in the place of adjacent ones: its files are theirs, joined. Each is compared with its digest."""
    first, last = group[0].first, group[-1].last
    kinds = sorted({(file.record_type, file.format) for entry in group for file in entry.files})
    entry = Entry(
        schema_version=group[-1].schema_version,
        first=first,
        last=last,
        last_event_id=group[-1].last_event_id,
        rows={record_type: sum(entry.rows[record_type] for entry in group) for record_type in RecordType},
        files=[_join(store, rewriter, group, kind) for kind in kinds],
    )
    rewriter.publish(entry)
    logger.info("compaction.joined ranges=%d first=%d last=%d", len(group), first, last)
    return entry


def sweep(store: ShardReader, rewriter: Rewriter, *, grace_s: float) -> int:
    """Remove what was replaced at least `grace_s` ago, and what the dead have left; gives how many files."""
    counting = ranges_of(store)
    position = counting[-1][1] if counting else 0
    paths = [(path, found) for path in store.paths() if (found := range_of(path.rpartition("/")[2])) is not None]
    removed, known = 0, set(counting)
    for path, found in paths:
        if not path.startswith("_manifest/") or found in counting:
            continue
        known.add(found)
        if found[1] <= position and _swapped_s_ago(rewriter, counting, found[0]) >= grace_s:
            # The entry goes first: there is never one that names a file which is gone.
            replaced = [path, *_files_of(store, found)]
            rewriter.remove(replaced)
            removed += len(replaced)
    stray_grace_s = grace_s if rewriter.alone else max(grace_s, GRACE_S)
    strays = [
        path
        for path, found in paths
        if found not in known and found[1] <= position and rewriter.age_s(path) >= stray_grace_s
    ]
    rewriter.remove(strays)
    return removed + len(strays)


# -- what to join -------------------------------------------------------------------------------------------------


def _block(entry: Entry, block_rows: int) -> int | None:
    """Give the number of the block that has the whole range."""
    block = (entry.first - 1) // block_rows
    return block if block == (entry.last - 1) // block_rows else None


def _likeness(entry: Entry) -> tuple[str, ...] | None:
    """Give what entries have to have in common; None for one that this version cannot join."""
    return tuple(sorted({file.format for file in entry.files})) if entry.schema_version == SCHEMA_VERSION else None


def _tiers(entries: Sequence[Entry], block_rows: int) -> list[list[Entry]]:
    """Give runs with at least sixteen ranges of one tier and none of a higher one; those of the lowest tier first.

    What is joined is of a higher tier than its parts were, so that nothing is rewritten more often than there are.
    """
    for tier in range(_tier(block_rows) + 1):
        runs = [list(run) for low, run in groupby(entries, key=lambda one: _tier(_span(one)) <= tier) if low]
        if found := [run for run in runs if sum(_tier(_span(one)) == tier for one in run) >= _FAN_IN]:
            return found
    return []


def _span(entry: Entry) -> int:
    return entry.last - entry.first + 1


def _tier(span: int) -> int:
    """Give 0 for less than 16 positions, 1 for less than 256, and so on."""
    return (span.bit_length() - 1) // 4


# -- how it is joined ---------------------------------------------------------------------------------------------


def _join(store: ShardReader, rewriter: Rewriter, group: Sequence[Entry], kind: tuple[RecordType, str]) -> ShardFile:
    record_type, name = kind
    parts = [file for entry in group if (file := entry.files_of(name).get(record_type)) is not None]
    out = NewFile(rewriter.folder / f"{record_type}-{group[0].first}.{name}")
    try:
        formats.named(name).join(opened(store, parts), out, SCHEMAS[record_type])
        out.close()
        rows = sum(part.rows for part in parts)
        joined = shard_file(record_type, name, group[0].first, group[-1].last, rows=rows, file=out)
        rewriter.place(out.path, joined)
    finally:
        out.discard()
    return joined


def opened(store: ShardReader, files: Iterable[ShardFile]) -> Iterator[BinaryIO]:
    """Open shards one after another, each compared with its digest before it is given on."""
    for listed in files:
        with store.open(listed) as file:
            digest = hashlib.sha256()
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
            if digest.hexdigest() != listed.sha256:
                raise StoreCorrupted(
                    f"{listed.path} is not what the manifest says; `workledger verify --training` names the lines",
                    location=listed.path,
                )
            file.seek(0)
            yield file


# -- what is left over --------------------------------------------------------------------------------------------


def _swapped_s_ago(rewriter: Rewriter, counting: Sequence[tuple[int, int]], position: int) -> float:
    """Give how long ago the range that covers a position came to count."""
    covering = next(found for found in counting if found[0] <= position <= found[1])
    return rewriter.age_s(entry_path(*covering))


def _files_of(store: ShardReader, found: tuple[int, int]) -> list[str]:
    try:
        return [file.path for file in store.entry(*found).files]
    except StoreCorrupted:
        return []
