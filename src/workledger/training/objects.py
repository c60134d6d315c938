"""The training store in a bucket: the files of a folder's store (`training.store`), as objects of the same names.

A bucket has no locks that end with their holder. What decides is `latest.json`: a range counts from the moment when
the summary that names it takes the place of the one before, and a store puts it there only if that is still the one
its writer had read. Of two writers one wins, the other reads again and goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from workledger.errors import StoreCorrupted, Unavailable
from workledger.training.bucket import Bucket, Version
from workledger.training.compaction import GRACE_S
from workledger.training.formats import Format
from workledger.training.manifest import (
    Entry,
    Latest,
    ListedRange,
    entry_path,
    latest,
    listed,
    read_entry,
    read_latest,
    tiled,
)
from workledger.training.records import SCHEMAS, RecordType
from workledger.training.scratch import scratch_folder
from workledger.training.shard_store import Rewriter, entries_of, ranges_of
from workledger.training.shards import OpenShard, ShardFile, range_of
from workledger.training.store import StoreWriter

__all__ = ["ObjectStore"]

_LATEST: Final = "latest.json"
#: A writer that took longer from its first file to the summary starts again: its files may have been swept away.
_PUBLISH_WITHIN_S: Final = GRACE_S / 2
_RACES: Final = 50


class ObjectStore:
    """Shards in a bucket."""

    def __init__(self, bucket: Bucket, *, formats: Sequence[Format]) -> None:
        self.bucket = bucket
        self.formats = tuple(formats)
        self._checked = False
        self._entries: dict[tuple[int, int], Entry] = {}

    @property
    def name(self) -> str:
        """The address without its options."""
        return self.bucket.name

    def position(self) -> int:
        """Give the end of the last range."""
        return self.latest()[0].position

    def ranges(self) -> list[tuple[int, int]]:
        """Give the ranges that count, in order. Raises `StoreCorrupted` where they leave a gap or overlap."""
        return ranges_of(self)

    def entries(self) -> list[Entry]:
        """Give the manifest: the entries that count, in order; those read before are not read again."""
        found = entries_of(self)
        self._entries = {(entry.first, entry.last): entry for entry in found}
        return found

    def all_ranges(self) -> list[tuple[int, int]]:
        """Give the ranges that count."""
        return [(found.first, found.last) for found in self.latest()[0].ranges]

    def entry(self, first: int, last: int) -> Entry:
        """Give what the manifest says about a range, which never changes."""
        path = entry_path(first, last)
        if (known := self._entries.get((first, last))) is not None:
            return known
        data = self.document(path)
        if data is None:
            raise StoreCorrupted(f"{path} is gone", location=path)
        return read_entry(data, location=path)

    def open(self, file: ShardFile) -> BinaryIO:
        """Open a copy of a shard; the caller closes it. Raises `StoreCorrupted` when the shard is gone."""
        found = self.bucket.open(file.path)
        if found is None:
            raise StoreCorrupted(f"{file.path} is in the manifest and not in the store", location=file.path)
        return found

    def paths(self) -> list[str]:
        """Give the paths of the objects that are named by a range: shards and entries, whether they count or not."""
        found = [one.path for folder in (*RecordType, "_manifest") for one in self.bucket.list(folder)]
        return sorted(path for path in found if range_of(path.rpartition("/")[2]) is not None)

    def document(self, path: str) -> bytes | None:
        """Give a small object; None when it is not there."""
        found = self.bucket.read(path)
        return None if found is None else found[0]

    def latest(self) -> tuple[Latest, Version | None]:
        """Give the summary that counts, and its version; an empty one and None where there is none."""
        found = self.bucket.read(_LATEST)
        return (Latest(), None) if found is None else (read_latest(found[0], location=_LATEST), found[1])

    @contextmanager
    def writing(self) -> Generator[StoreWriter | None]:
        """Write. Others may be at it too: a range that somebody else was first to publish raises `Unavailable`."""
        with scratch_folder() as folder:
            self._prepare()
            writer = _ObjectWriter(self, folder)
            try:
                yield writer
            finally:
                writer.discard()

    @contextmanager
    def rewriting(self) -> Generator[Rewriter | None]:
        """Rewrite what is landed, while writers go on. Two who do it at once make the same files."""
        with scratch_folder() as folder:
            self._prepare()
            self._restore()
            yield _ObjectRewriter(self, folder)

    def publish(self, entry: Entry, known: tuple[Latest, Version | None]) -> tuple[Latest, Version | None]:
        """Add a range to the summary, in place of those it covers, after what was `known` and whatever came since.

        Gives the summary that counts then. Raises `Unavailable` when somebody else has been there.
        """
        for _ in range(_RACES):
            summary, version = known
            if listed(entry) in summary.ranges:
                return known
            ranges = _with(summary.ranges, entry)
            if ranges is None:
                break
            wanted = latest(ranges, formats=self._names())
            if (swapped := self.bucket.swap(_LATEST, wanted.encoded(), version)) is not None:
                return wanted, swapped
            known = self.latest()
        raise _outrun(self.name, entry.first)

    def landed(self) -> list[tuple[int, int]]:
        """Give the ranges that have an entry, if there is more than a first one that was never finished."""
        found = [range_of(one.path.rpartition("/")[2]) for one in self.bucket.list("_manifest")]
        ranges = [one for one in found if one is not None]
        return ranges if any(first > 1 for first, _ in ranges) else []

    def _restore(self) -> None:
        """Make the summary of the entries, where it is gone."""
        if self.latest()[1] is None and (ranges := tiled(self.landed())):
            summary = latest([listed(self.entry(*found)) for found in ranges], formats=self._names())
            self.bucket.swap(_LATEST, summary.encoded(), None)

    def _names(self) -> list[str]:
        return [form.name for form in self.formats]

    def _prepare(self) -> None:
        """See once that the store can do what is asked of it, and say what the columns are."""
        if self._checked:
            return
        self.bucket.check_conditions()
        for record_type, schema in SCHEMAS.items():
            path = f"_schema/{record_type}.json"
            if self.document(path) != schema.published():
                self.bucket.put(path, schema.published())
        self._checked = True


def _begun_by_others(store: ObjectStore) -> tuple[Latest, Version | None]:
    """Give the summary of a store that had none a moment ago, and has ranges now. Raises `StoreCorrupted` for none."""
    summary, version = store.latest()
    if version is None:
        reason = f"{store.name}/{_LATEST} is gone; `workledger verify --training --repair` makes it again"
        raise StoreCorrupted(reason, location=_LATEST)
    return summary, version


class _ObjectWriter:
    """A writer of an `ObjectStore`."""

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._known = store.latest()
        if self._known[1] is None and store.landed():
            self._known = _begun_by_others(store)
        ranges = tiled((found.first, found.last) for found in self._known[0].ranges)
        self._last_event_id = store.entry(*ranges[-1]).last_event_id if ranges else None
        self._shard = OpenShard(folder, formats=store.formats)

    @property
    def position(self) -> int:
        """The end of the last range."""
        return self._known[0].position

    @property
    def last_event_id(self) -> str | None:
        """The id of the event there."""
        return self._last_event_id

    def write(self, record_type: RecordType, lines: Sequence[bytes]) -> None:
        """Write to the files of the range at hand, which are here until it ends."""
        self._shard.write(record_type, lines)

    def commit(self, *, last: int, last_event_id: str) -> Entry:
        """Upload the files of the range, then its entry, then swap the summary, which makes it count."""
        first, rows, began_s = self.position + 1, self._shard.rows(), time.time()
        bucket = self._store.bucket
        sealed = list(self._shard.seal(first, last))
        for temporary, file in sealed:
            bucket.upload(temporary, file.path, sha256=file.sha256)
            temporary.unlink()
        files = [file for _, file in sealed]
        entry = Entry(first=first, last=last, last_event_id=last_event_id, rows=rows, files=files)
        bucket.create(entry.path, entry.encoded())
        if abs(time.time() - began_s) > _PUBLISH_WITHIN_S:
            raise Unavailable(
                f"{self._store.name}: writing positions {first} to {last} took too long; they are written again"
            )
        self._known = self._store.publish(entry, self._known)
        if self.position != last:
            # The same range was there already, and more after it.
            raise _outrun(self._store.name, last + 1)
        self._last_event_id = last_event_id
        self._shard = OpenShard(self._folder, formats=self._store.formats)
        return entry

    def discard(self) -> None:
        """Forget the range at hand."""
        self._shard.discard()


class _ObjectRewriter:
    """The `Rewriter` of an `ObjectStore`."""

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._began_s: float | None = None

    @property
    def alone(self) -> bool:
        """No: nobody can be kept out of a bucket."""
        return False

    @property
    def folder(self) -> Path:
        """Where files are prepared."""
        return self._folder

    def place(self, temporary: Path, file: ShardFile) -> None:
        """Upload a prepared file."""
        self._began_s = self._began_s or time.time()
        self._store.bucket.upload(temporary, file.path, sha256=file.sha256)
        temporary.unlink()

    def publish(self, entry: Entry) -> None:
        """Upload the entry, then swap the summary."""
        if self._began_s is not None and abs(time.time() - self._began_s) > _PUBLISH_WITHIN_S:
            raise Unavailable(f"{self._store.name}: joining up to {entry.last} took too long; it is done again")
        bucket = self._store.bucket
        bucket.create(entry.path, entry.encoded())
        # It may have been made long ago by one who died then; the time of grace begins now.
        bucket.put(entry.path, entry.encoded())
        self._store.publish(entry, self._store.latest())
        self._began_s = None

    def age_s(self, path: str) -> float:
        """Give how long ago an object was written."""
        written_at = self._store.bucket.written_at(path)
        return 0.0 if written_at is None else max((datetime.now(UTC) - written_at).total_seconds(), 0.0)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove objects."""
        self._store.bucket.delete(paths)


def _outrun(name: str, first: int) -> Unavailable:
    return Unavailable(
        f"{name}: another process has written positions from {first} on meanwhile; this one goes on after them",
        outrun=True,
    )


def _with(ranges: Sequence[ListedRange], entry: Entry) -> list[ListedRange] | None:
    """Give the ranges with this one in the place of those it covers, or after the last; None when it does not fit."""
    before = [found for found in ranges if found.last < entry.first]
    after = [found for found in ranges if found.first > entry.last]
    covered = ranges[len(before) : len(ranges) - len(after)]
    begins = covered[0].first if covered else (before[-1].last + 1 if before else 1)
    ends = covered[-1].last if covered else entry.last
    if (begins, ends) != (entry.first, entry.last) or (after and not covered):
        return None
    return [*before, listed(entry), *after]
