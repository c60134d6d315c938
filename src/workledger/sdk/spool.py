"""The spool: where changes wait on this machine's disk while PostgreSQL is away.

An SQLite file in the home folder, shared by all processes that record there; every append is fsynced. Changes
carry their identity, so replaying them is harmless however often it is done.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from workledger.errors import SpoolFull, StoreCorrupted, WorkledgerError
from workledger.model.change import Change
from workledger.operational.apply import Outcome
from workledger.postgres._process import exclusive

__all__ = ["Spool"]

_SCHEMA: Final = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS waiting (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, size_bytes INTEGER NOT NULL, change BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS refused (seq INTEGER PRIMARY KEY, reason TEXT NOT NULL, change BLOB NOT NULL);
"""
_PAGE: Final = 200

Apply = Callable[[Sequence[Change]], Sequence[Outcome | WorkledgerError]]


class Spool:
    """A bounded, durable queue of changes. Safe from any thread and process."""

    def __init__(self, path: Path, *, limit_bytes: int) -> None:
        self._path = path
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self._path

    def append(self, changes: Sequence[Change]) -> None:
        """Keep changes, in order, durably; raises `SpoolFull` at the bound or when the disk is full."""
        rows = [(len(data), data) for data in map(msgspec.msgpack.encode, changes)]
        with self._lock, self._open() as database, database:
            database.execute("BEGIN IMMEDIATE")
            (held,) = database.execute("SELECT coalesce(sum(size_bytes), 0) FROM waiting").fetchone()
            self._check_room(held + sum(size for size, _ in rows))
            database.executemany("INSERT INTO waiting (size_bytes, change) VALUES (?, ?)", rows)

    def _check_room(self, size_bytes: int) -> None:
        if size_bytes > self._limit_bytes:
            raise SpoolFull(
                f"PostgreSQL is away and the spool {self._path} has reached its bound of {self._limit_bytes:,} bytes; "
                "bring the database back, or raise WORKLEDGER_SPOOL_LIMIT_BYTES",
                size_bytes=size_bytes,
                limit_bytes=self._limit_bytes,
            )

    def waiting(self) -> int:
        """How many changes wait."""
        return self._count("SELECT count(*) FROM waiting")

    def refused(self) -> int:
        """How many changes were refused when they were replayed; they are kept for a person to look at."""
        return self._count("SELECT count(*) FROM refused")

    def _count(self, query: str) -> int:
        if not self._path.exists():
            return 0
        with self._lock, self._open() as database:
            (count,) = database.execute(query).fetchone()
            return count

    def drain(self, apply: Apply) -> int:
        """Replay what waits, in order, and forget it once it is applied; returns how many were.

        One process drains at a time; another one that comes in between returns 0. What `apply` raises ends the
        round and leaves the rest in place.
        """
        drained = 0
        try:
            with exclusive(self._path.with_suffix(".lock"), timeout_s=0):
                while page := self._page():
                    outcomes = apply([change for _, change in page])
                    self._forget(page, outcomes)
                    drained += len(page)
        except TimeoutError:
            return 0  # another process is at it
        return drained

    def _page(self) -> list[tuple[int, Change]]:
        with self._lock, self._open() as database:
            rows = database.execute("SELECT seq, change FROM waiting ORDER BY seq LIMIT ?", (_PAGE,)).fetchall()
        return [(seq, msgspec.msgpack.decode(data, type=Change)) for seq, data in rows]

    def _forget(self, page: Sequence[tuple[int, Change]], outcomes: Sequence[Outcome | WorkledgerError]) -> None:
        refused = [
            (seq, f"{type(outcome).__name__}: {outcome}", msgspec.msgpack.encode(change))
            for (seq, change), outcome in zip(page, outcomes, strict=True)
            if isinstance(outcome, WorkledgerError)
        ]
        with self._lock, self._open() as database, database:
            database.execute("BEGIN IMMEDIATE")
            database.executemany("INSERT OR REPLACE INTO refused (seq, reason, change) VALUES (?, ?, ?)", refused)
            database.executemany("DELETE FROM waiting WHERE seq = ?", [(seq,) for seq, _ in page])

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        # A connection for each use: it is rare, and so nothing has to survive a fork.
        with _translated(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=30, isolation_level=None)) as database:
                database.executescript(_SCHEMA)
                database.execute("PRAGMA synchronous = FULL")
                yield database


@contextmanager
def _translated(path: Path) -> Generator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise SpoolFull(
            f"PostgreSQL is away and the spool {path} cannot be used: {error}", size_bytes=None, limit_bytes=None
        ) from error
    except (sqlite3.DatabaseError, OSError) as error:
        raise StoreCorrupted(
            f"PostgreSQL is away and the spool {path} cannot be read: {error}. Move the file aside; what it held "
            "may still be read from it with `sqlite3 FILE .recover`",
            location=str(path),
        ) from error
