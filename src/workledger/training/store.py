"""The training store in a folder.

data/training/
├── events/  tasks/  tool_executions/  workflows/    the shards
├── _manifest/<first>-<last>.json                    one entry a range, created once
├── _schema/<record type>.json                       what the columns are (JSON Schema)
├── latest.json                                      a summary of the manifest, replaced with each range
├── _lock  _lock_rewriting  _lock_latest             held by the one process that lands, rewrites, says what is there
└── _tmp/  _rewriting/                               what is being written
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from workledger.errors import ConfigurationError, StoreCorrupted
from workledger.training import formats
from workledger.training.folder import Folder, explained, locked
from workledger.training.formats import Format
from workledger.training.manifest import Entry, ListedRange, entry_path, latest, listed, read_entry, tiled, tiling
from workledger.training.records import SCHEMAS, RecordType
from workledger.training.shards import OpenShard, ShardFile, range_of

__all__ = ["LocalStore", "StoreWriter", "TrainingStore", "open_store"]

_KNOWN: Final = "file:FOLDER?format=jsonl,csv"


class StoreWriter(Protocol):
    """Writes ranges of positions, one after another. Whatever ends it, a range is in the store whole or not at all."""

    @property
    def position(self) -> int:
        """The last position that is durable; the next range begins after it."""
        ...

    @property
    def last_event_id(self) -> str | None:
        """The id of the event at that position; None at the beginning."""
        ...

    def write(self, record_type: RecordType, lines: Sequence[bytes]) -> None:
        """Add lines to the range at hand, in ascending order of position for each record type."""
        ...

    def commit(self, *, last: int, last_event_id: str) -> object:
        """End the range at `last` and make it durable.

        Raises `Unavailable` with `outrun=True` when another writer was first: whoever opens the store for writing
        again goes on after that one.
        """
        ...

    def discard(self) -> None:
        """Forget the range at hand."""
        ...


class TrainingStore(Protocol):
    """Holds the lines of the log from position 1 on, each once, and knows itself how far it has come."""

    @property
    def name(self) -> str:
        """What tells it from other stores, the same in every process that uses it."""
        ...

    def position(self) -> int:
        """Give the last position that is durable; 0 for a store that is not there yet."""
        ...

    def writing(self) -> AbstractContextManager[StoreWriter | None]:
        """Be the writer of the store; None when somebody else is. A killed writer leaves nothing in the way.

        Where a store cannot keep a second writer out, it refuses what that one commits.
        """
        ...


def open_store(url: str) -> LocalStore:
    """Give the training store that a URL means: `file:FOLDER?format=jsonl,csv`. Nothing is made or read yet."""
    parts = urlsplit(url)
    query = parse_qs(parts.query, keep_blank_values=True)
    wanted = [name for value in query.pop("format", ["jsonl"]) for name in value.split(",")]
    path = unquote(parts.path)
    if parts.scheme != "file" or not path or parts.netloc not in {"", "localhost"} or query:
        raise ConfigurationError(
            f"{url!r} is not a training store; use {_KNOWN}", setting="WORKLEDGER_TRAINING_URL", value=url
        )
    return LocalStore(Path(path), formats=[formats.named(name) for name in dict.fromkeys(wanted)])


class LocalStore:
    """Shards in a folder of this machine."""

    def __init__(self, folder: Path, *, formats: Sequence[Format]) -> None:
        self.folder = folder.expanduser().absolute()
        self.formats = tuple(formats)
        self._known: dict[tuple[int, int], ListedRange] = {}

    @property
    def name(self) -> str:
        """The folder; a path too long to be a consumer's name is told by its digest."""
        text = str(self.folder)
        limit = 200
        return text if len(text) <= limit else f"…{text[-100:]}#{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def ranges(self) -> list[tuple[int, int]]:
        """Give the ranges the store has, in order. Raises `StoreCorrupted` where they leave a gap or overlap."""
        return tiled(self.all_ranges())

    def all_ranges(self) -> list[tuple[int, int]]:
        """Give every range that has an entry, counting or not, in no order."""
        folder = self.folder / "_manifest"
        found = (range_of(path.name) for path in (folder.iterdir() if folder.is_dir() else ()))
        return [one for one in found if one is not None]

    def position(self) -> int:
        """Give the end of the last range."""
        ranges = self.ranges()
        return ranges[-1][1] if ranges else 0

    def entries(self) -> list[Entry]:
        """Give the manifest: the entries that count, in order."""
        return [self.entry(first, last) for first, last in self.ranges()]

    def entry(self, first: int, last: int) -> Entry:
        """Give what the manifest says about a range."""
        path = entry_path(first, last)
        try:
            data = (self.folder / path).read_bytes()
        except FileNotFoundError as error:
            raise StoreCorrupted(f"{path} is gone", location=path) from error
        return read_entry(data, location=path)

    def open(self, file: ShardFile) -> BinaryIO:
        """Open a shard to read it; the caller closes it. Raises `StoreCorrupted` when it is gone."""
        try:
            return (self.folder / file.path).open("rb")
        except FileNotFoundError as error:
            raise StoreCorrupted(f"{file.path} is in the manifest and not in the store", location=file.path) from error

    def paths(self) -> list[str]:
        """Give the paths of the files that are named by a range: shards and entries, whether they count or not."""
        return [
            f"{folder}/{path.name}"
            for folder in (*RecordType, "_manifest")
            for path in sorted((self.folder / folder).glob("*"))
            if range_of(path.name) is not None
        ]

    def unlisted(self) -> list[str]:
        """Give the shards whose range the manifest does not have: left by who died."""
        known = set(self.all_ranges())
        return [path for path in self.paths() if range_of(Path(path).name) not in known]

    def document(self, path: str) -> bytes | None:
        """Give a small file; None when it is not there."""
        try:
            return (self.folder / path).read_bytes()
        except FileNotFoundError:
            return None

    @contextmanager
    def writing(self) -> Generator[StoreWriter | None]:
        """Be the one writer, by a lock on a file that ends with the process that holds it."""
        with self._locked("_lock") as first:
            if not first:
                yield None
                return
            writer = _LocalWriter(self)
            try:
                yield writer
            finally:
                writer.discard()

    @contextmanager
    def rewriting(self) -> Generator[_LocalRewriter | None]:
        """Be the one who rewrites what is landed, while the writer goes on."""
        with self._locked("_lock_rewriting") as first:
            if not first:
                yield None
                return
            rewriter = _LocalRewriter(self)
            try:
                yield rewriter
            finally:
                shutil.rmtree(rewriter.folder, ignore_errors=True)

    def say_latest(self, files: Folder) -> None:
        """Replace the summary. One at a time: the last to write it has seen what all before have done."""
        with locked(self.folder / "_lock_latest", wait=True):
            self._known = {found: self._known.get(found) or listed(self.entry(*found)) for found in self.ranges()}
            summary = latest(self._known.values(), formats=[form.name for form in self.formats])
            files.replace("latest.json", summary.encoded())

    @contextmanager
    def _locked(self, name: str) -> Generator[bool]:
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / name, wait=False) as first:
            yield first


class _LocalWriter:
    """The writer of a `LocalStore`, for as long as it holds the lock."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self._files = Folder(store.folder, scratch="_tmp")
        ranges = store.ranges()
        self._end = store.entry(*ranges[-1]) if ranges else None
        with explained(store.folder):
            self._prepare()
            store.say_latest(self._files)
        self._shard = OpenShard(self._files.scratch, formats=store.formats)

    @property
    def position(self) -> int:
        """The end of the last range."""
        return self._end.last if self._end else 0

    @property
    def last_event_id(self) -> str | None:
        """The id of the event there."""
        return self._end.last_event_id if self._end else None

    def write(self, record_type: RecordType, lines: Sequence[bytes]) -> None:
        """Write to the files of the range at hand."""
        with explained(self._store.folder):
            self._shard.write(record_type, lines)

    def commit(self, *, last: int, last_event_id: str) -> Entry:
        """Make the files of the range durable, then the manifest entry that makes them count, then the summary.

        A crash between leaves files that no entry names, which the next writer removes.
        """
        first, rows = self.position + 1, self._shard.rows()
        with explained(self._store.folder):
            sealed = list(self._shard.seal(first, last))
            self._files.place(sealed)
            files = [file for _, file in sealed]
            entry = Entry(first=first, last=last, last_event_id=last_event_id, rows=rows, files=files)
            self._files.create(entry.path, entry.encoded())
            self._end = entry
            self._shard = OpenShard(self._files.scratch, formats=self._store.formats)
            self._store.say_latest(self._files)
        return entry

    def discard(self) -> None:
        """Remove the files of the range at hand."""
        self._shard.discard()

    def _prepare(self) -> None:
        """Make the folders; remove what writers that died have left: all that is beyond the end."""
        _make_folders(self._files)
        left = [self._store.folder / path for path in self._store.unlisted()]
        for path in (*self._files.scratch.iterdir(), *left):
            covered = range_of(path.name)
            if covered is None or covered[0] > self.position:
                path.unlink()
        for record_type, schema in SCHEMAS.items():
            path = f"_schema/{record_type}.json"
            if self._store.document(path) != schema.published():
                self._files.replace(path, schema.published())


class _LocalRewriter:
    """The `Rewriter` of a `LocalStore`, for as long as it holds the lock."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self._files = Folder(store.folder, scratch="_rewriting")
        with explained(store.folder):
            shutil.rmtree(self.folder, ignore_errors=True)
            _make_folders(self._files)

    @property
    def alone(self) -> bool:
        """Yes, by the lock."""
        return True

    @property
    def folder(self) -> Path:
        """Where files are prepared."""
        return self._files.scratch

    def place(self, temporary: Path, file: ShardFile) -> None:
        """Give a prepared file its name."""
        with explained(self._store.folder):
            self._files.place([(temporary, file)])

    def publish(self, entry: Entry) -> None:
        """Make the entry: from then on it counts, and those in its range do not."""
        with explained(self._store.folder):
            self._files.create(entry.path, entry.encoded())
            if not tiling(self._store.all_ranges())[1]:  # else more is missing, and the summary stays as it was
                self._store.say_latest(self._files)

    def age_s(self, path: str) -> float:
        """Give how long ago a file got its name: linking a name to a file changes its status."""
        try:
            return max(time.time() - (self._store.folder / path).stat().st_ctime, 0.0)
        except FileNotFoundError:
            return 0.0

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files."""
        with explained(self._store.folder):
            for path in paths:
                (self._store.folder / path).unlink(missing_ok=True)


def _make_folders(files: Folder) -> None:
    for name in (*RecordType, "_manifest", "_schema"):
        (files.root / name).mkdir(exist_ok=True)
    files.scratch.mkdir(exist_ok=True)
