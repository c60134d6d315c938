"""The training store in a folder.

data/training/
├── events/  tasks/  tool_executions/  workflows/    the shards
├── _manifest/<first>-<last>.json                    one entry a range, created once
├── _schema/<record type>.json                       what the columns are (JSON Schema)
├── latest.json                                      a summary of the manifest, replaced with each range
├── _lock                                            held by the one process that writes
└── _tmp/                                            what is being written
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import uuid
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from workledger.errors import ConfigurationError, StoreCorrupted, Unavailable
from workledger.training import formats
from workledger.training.formats import Format
from workledger.training.manifest import Entry, entry_path, latest, read_entry, tiled
from workledger.training.records import SCHEMAS, RecordType
from workledger.training.shards import OpenShard, ShardFile, create_file, range_of, sync_folder

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

    def commit(self, *, last: int, last_event_id: str) -> Entry:
        """End the range at `last` and make it durable."""
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
        """Be the one writer of the store; None when somebody else is. A killed writer leaves nothing in the way."""
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

    def shards(self) -> list[Path]:
        """Give the files in the places of shards that are named like one."""
        return [
            path
            for record_type in RecordType
            for path in sorted((self.folder / record_type).glob("*"))
            if range_of(path.name) is not None
        ]

    def unlisted(self) -> list[Path]:
        """Give the files named like a shard whose range the manifest does not have: a dead writer's."""
        known = set(self.all_ranges())
        return [path for path in self.shards() if range_of(path.name) not in known]

    @contextmanager
    def writing(self) -> Generator[StoreWriter | None]:
        """Be the one writer, by a lock on a file that ends with the process that holds it."""
        with _explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.folder / "_lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            writer = _LocalWriter(self)
            try:
                yield writer
            finally:
                writer.discard()
        finally:
            os.close(descriptor)


class _LocalWriter:
    """The writer of a `LocalStore`, for as long as it holds the lock."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self._tmp = store.folder / "_tmp"
        with _explained(store.folder):
            self._prepare()
        self._entries = store.entries()
        with _explained(store.folder):
            self._say_latest()
        self._shard = OpenShard(self._tmp, formats=store.formats)

    @property
    def position(self) -> int:
        """The end of the last range."""
        return self._entries[-1].last if self._entries else 0

    @property
    def last_event_id(self) -> str | None:
        """The id of the event there."""
        return self._entries[-1].last_event_id if self._entries else None

    def write(self, record_type: RecordType, lines: Sequence[bytes]) -> None:
        """Write to the files of the range at hand."""
        with _explained(self._store.folder):
            self._shard.write(record_type, lines)

    def commit(self, *, last: int, last_event_id: str) -> Entry:
        """Make the files of the range durable, then the manifest entry that makes them count, then the summary.

        A crash between leaves files that no entry names, which the next writer removes.
        """
        first, rows = self.position + 1, self._shard.rows()
        with _explained(self._store.folder):
            sealed = list(self._shard.seal(first, last))
            for temporary, file in sealed:
                create_file(temporary, self._store.folder / file.path, sha256=file.sha256)
            for folder in {self._store.folder / file.record_type for _, file in sealed}:
                sync_folder(folder)
            entry = Entry(
                first=first, last=last, last_event_id=last_event_id, rows=rows, files=[file for _, file in sealed]
            )
            self._create(entry.path, entry.encoded())
            self._entries.append(entry)
            self._shard = OpenShard(self._tmp, formats=self._store.formats)
            self._say_latest()
        return entry

    def discard(self) -> None:
        """Remove the files of the range at hand."""
        self._shard.discard()

    def _prepare(self) -> None:
        """Make the folders; remove what writers that died have left."""
        for name in (*RecordType, "_manifest", "_schema", "_tmp"):
            (self._store.folder / name).mkdir(exist_ok=True)
        for path in (*self._tmp.iterdir(), *self._store.unlisted()):
            path.unlink()
        for record_type, schema in SCHEMAS.items():
            path = self._store.folder / "_schema" / f"{record_type}.json"
            if not path.exists() or path.read_bytes() != schema.published():
                self._replace(path, schema.published())

    def _create(self, path: str, data: bytes) -> None:
        final = self._store.folder / path
        create_file(self._temporary(data), final, sha256=hashlib.sha256(data).hexdigest())
        sync_folder(final.parent)

    def _replace(self, final: Path, data: bytes) -> None:
        self._temporary(data).replace(final)

    def _temporary(self, data: bytes) -> Path:
        path = self._tmp / uuid.uuid4().hex
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return path

    def _say_latest(self) -> None:
        data = latest(self._entries, formats=[form.name for form in self._store.formats])
        self._replace(self._store.folder / "latest.json", data)


@contextmanager
def _explained(folder: Path) -> Generator[None]:
    """Say what to do about a disk that is full or a folder that cannot be written."""
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"the training store {folder} cannot be written: {error}. What is landed is safe; landing goes on from "
            "there once there is room and permission"
        ) from error
