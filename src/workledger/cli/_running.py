"""Which `workledger up` run for a home folder.

Each has a folder of its own, `up/PID/`, with a lock that it holds for as long as it lives: a pid file alone would
name somebody else after a crash. Beside the lock stands what it runs and where that can be found.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["Announcement", "Running", "announce_myself", "find", "stop"]

_POLL_S: Final = 0.05


@dataclass(slots=True, kw_only=True)
class Running:
    """One process: what it runs, and where that can be found."""

    pid: int
    project: str
    loops: list[str] = field(default_factory=list[str])
    urls: dict[str, str] = field(default_factory=dict[str, str])
    ready: bool = False


class Announcement:
    """What this process says of itself."""

    def __init__(self, folder: Path, running: Running) -> None:
        self._folder = folder
        self.running = running

    def write(self) -> None:
        """Say what is known by now; a reader sees all of it or what was said before."""
        draft = self._folder / "draft.json"
        draft.write_text(json.dumps(asdict(self.running)), "utf-8")
        draft.rename(self._folder / "running.json")


@contextmanager
def announce_myself(home: Path, project: str) -> Generator[Announcement]:
    """Say that this process runs for a home folder, for as long as the block lasts."""
    folder = home / "up" / str(os.getpid())
    shutil.rmtree(folder, ignore_errors=True)  # of a dead process that had our number
    folder.mkdir(parents=True)
    announcement = Announcement(folder, Running(pid=os.getpid(), project=project))
    announcement.write()
    with (folder / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield announcement
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def find(home: Path) -> list[Running]:
    """The processes that live, by process id."""
    found: list[Running] = []
    for folder in (home / "up").glob("[0-9]*"):
        if _lives(folder):
            with suppress(OSError, ValueError, TypeError):
                found.append(Running(**json.loads((folder / "running.json").read_text("utf-8"))))
    return sorted(found, key=lambda running: running.pid)


def _lives(folder: Path) -> bool:
    try:
        with (folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def stop(home: Path, running: Running, *, timeout_s: float = 30.0) -> bool:
    """Ask a process to stop and wait until it has; False when it is still there after the time."""
    folder = home / "up" / str(running.pid)
    if _lives(folder):
        with suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGTERM)
    deadline_s = time.monotonic() + timeout_s
    while _lives(folder):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_POLL_S)
    return True
