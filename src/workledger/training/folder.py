"""How files get into a folder: written beside, brought to the disk, then given their name."""

from __future__ import annotations

import fcntl
import hashlib
import os
import uuid
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from workledger.errors import Unavailable
from workledger.training.shards import ShardFile, create_file, sync_folder

__all__ = ["Folder", "explained", "locked"]


class Folder:
    """The folder of a store, and the one in it where files are prepared."""

    def __init__(self, root: Path, *, scratch: str) -> None:
        self.root = root
        self.scratch = root / scratch

    def create(self, path: str, data: bytes) -> None:
        """Make a small file, unless it is there; other content there raises `StoreCorrupted`."""
        final = self.root / path
        create_file(self._prepared(data), final, sha256=hashlib.sha256(data).hexdigest())
        sync_folder(final.parent)

    def replace(self, path: str, data: bytes) -> None:
        """Make a small file, or put it in the place of the one that is there, at one moment."""
        self._prepared(data).replace(self.root / path)

    def place(self, prepared: Iterable[tuple[Path, ShardFile]]) -> None:
        """Give prepared files their names."""
        folders: set[Path] = set()
        for temporary, file in prepared:
            final = self.root / file.path
            create_file(temporary, final, sha256=file.sha256)
            folders.add(final.parent)
        for folder in folders:
            sync_folder(folder)

    def _prepared(self, data: bytes) -> Path:
        path = self.scratch / uuid.uuid4().hex
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return path


@contextmanager
def locked(path: Path, *, wait: bool) -> Generator[bool]:
    """Hold the lock on a file, which ends with the process that holds it; False when another one does."""
    with explained(path.parent):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


@contextmanager
def explained(folder: Path) -> Generator[None]:
    """Say what to do about a disk that is full or a folder that cannot be written."""
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"the training store {folder} cannot be written: {error}. What is landed is safe; landing goes on from "
            "there once there is room and permission"
        ) from error
