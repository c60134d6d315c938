"""What a store made of shards is to those who read it and to those who rewrite it: a folder and a bucket alike."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol, TypeGuard

from workledger.training.formats import Format
from workledger.training.manifest import Entry, tiled
from workledger.training.shards import ShardFile
from workledger.training.store import TrainingStore

__all__ = ["Rewriter", "ShardReader", "ShardStore", "entries_of", "has_shards", "ranges_of"]


class ShardReader(Protocol):
    """The ranges of a store and their files.

    What it gives is of one moment. Files that are swapped out later stay for as long as whoever rewrites leaves them.
    """

    def all_ranges(self) -> list[tuple[int, int]]:
        """Give the ranges that count, and maybe others that those contain, in no order."""
        ...

    def entry(self, first: int, last: int) -> Entry:
        """Give what the manifest says about a range; `StoreCorrupted` when that is gone or cannot be read."""
        ...

    def open(self, file: ShardFile) -> BinaryIO:
        """Open a shard to read and seek in it; the caller closes it. `StoreCorrupted` when it is gone."""
        ...

    def paths(self) -> list[str]:
        """Give the paths of the files that are named by a range: shards and entries, whether they count or not."""
        ...

    def document(self, path: str) -> bytes | None:
        """Give a small file, such as `_schema/events.json` or `latest.json`; None when it is not there."""
        ...


class ShardStore(TrainingStore, ShardReader, Protocol):
    """A training store whose ranges are files."""

    def entries(self) -> list[Entry]:
        """Give the manifest: the entries that count, in order. `StoreCorrupted` where they leave a gap or overlap."""
        ...

    @property
    def formats(self) -> tuple[Format, ...]:
        """The formats in which new ranges are written."""
        ...

    def rewriting(self) -> AbstractContextManager[Rewriter | None]:
        """Be allowed to rewrite what is landed, beside the writer; None when somebody else is at it here."""
        ...


class Rewriter(Protocol):
    """Puts other files in the place of those that a store has. Whatever ends it, readers see the old or the new."""

    @property
    def alone(self) -> bool:
        """Whether nobody else can be rewriting, so that a file that no entry names is nobody's work."""
        ...

    @property
    def folder(self) -> Path:
        """Where files are prepared; gone afterwards."""
        ...

    def place(self, temporary: Path, file: ShardFile) -> None:
        """Give a prepared file its name. The same bytes there are fine; other bytes raise `StoreCorrupted`."""
        ...

    def publish(self, entry: Entry) -> None:
        """Make a range count, in place of those that it covers, at one moment for all readers.

        Raises `Unavailable` when the store has changed there meanwhile.
        """
        ...

    def age_s(self, path: str) -> float:
        """Give how long ago a file got its name; 0 when it is not there."""
        ...

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; those that are gone already are fine."""
        ...


def has_shards(store: TrainingStore) -> TypeGuard[ShardStore]:
    """Say whether a store is made of files of ours; any other is tables of a lake."""
    return hasattr(store, "all_ranges")


def ranges_of(store: ShardReader) -> list[tuple[int, int]]:
    """Give the ranges that count, in order. Raises `StoreCorrupted` where they leave a gap or overlap."""
    return tiled(store.all_ranges())


def entries_of(store: ShardReader) -> list[Entry]:
    """Give the manifest: the entries that count, in order."""
    return [store.entry(first, last) for first, last in ranges_of(store)]
