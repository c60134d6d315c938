"""A folder for what is on its way to somewhere else, gone with the process that made it."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from workledger.training.folder import explained, locked

__all__ = ["scratch_folder"]


@contextmanager
def scratch_folder() -> Generator[Path]:
    """Give an empty folder; removed afterwards, or by the next process when this one is killed."""
    base = Path(tempfile.gettempdir()) / f"workledger-{os.getuid()}"
    with explained(base):
        base.mkdir(mode=0o700, exist_ok=True)
        _remove_abandoned(base)
    folder = base / uuid.uuid4().hex
    with locked(folder.with_suffix(".lock"), wait=True):
        try:
            with explained(base):
                folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            folder.with_suffix(".lock").unlink(missing_ok=True)


def _remove_abandoned(base: Path) -> None:
    """Remove the folders whose locks nobody holds."""
    for lock in base.glob("*.lock"):
        with locked(lock, wait=False) as abandoned:
            if abandoned:
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)
