"""Checkpoints kept outside the database, where whoever can rewrite it cannot write."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from workledger.errors import StoreCorrupted

__all__ = ["CheckpointStore", "FolderCheckpoints"]


class CheckpointStore(Protocol):
    """A place that keeps small texts by name and never changes one."""

    def keep(self, name: str, note: str) -> None:
        """Create a text, durably. Doing it again is a no-op; raises `StoreCorrupted` when the name has another text."""
        ...

    def names(self) -> list[str]:
        """The names of the texts, in their order."""
        ...

    def read_all(self) -> dict[str, str]:
        """Every text by name."""
        ...


class FolderCheckpoints:
    """A folder. It should be on another machine, on write-once storage, or at least belong to somebody else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, name: str, note: str) -> None:
        """Write to a temporary name, sync, and link: the name appears whole, and only where there was none."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path, draft = self._folder / name, self._folder / f".{name}.{os.getpid()}"
        with draft.open("w", encoding="utf-8") as file:
            file.write(note)
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            if path.read_text("utf-8") != note:
                raise StoreCorrupted(
                    f"{path} holds another checkpoint for this position: the log was rewritten, or two logs share "
                    "the folder; `workledger verify --seals` tells which",
                    location=str(path),
                ) from None
        finally:
            draft.unlink()
        self._sync_folder()

    def names(self) -> list[str]:
        """The names of the checkpoints, oldest first."""
        return sorted(path.name for path in self._folder.glob("*.checkpoint"))

    def read_all(self) -> dict[str, str]:
        """Every checkpoint by file name, oldest first."""
        return {name: (self._folder / name).read_text("utf-8") for name in self.names()}

    def _sync_folder(self) -> None:
        handle = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
