"""The spool: where changes wait on this machine's disk while PostgreSQL is away.

An SQLite file in the home folder, shared by all processes that record there; every append is fsynced. Changes
carry their identity, so replaying them is harmless however often it is done.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
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

logger = logging.getLogger(__name__)

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

    def append(self, changes: Sequence[Change]) -> int:
        """Keep changes, in order, durably; raises `SpoolFull` at the bound or when the disk is full.

        Returns the number under which the last of them waits.
        """
        rows = [(len(data), data) for data in map(msgspec.msgpack.encode, changes)]
        with self._lock, self._open() as database, database:
            database.execute("BEGIN IMMEDIATE")
            (held,) = database.execute("SELECT coalesce(sum(size_bytes), 0) FROM waiting").fetchone()
            self._check_room(held + sum(size for size, _ in rows))
            database.executemany("INSERT INTO waiting (size_bytes, change) VALUES (?, ?)", rows)
            (last,) = database.execute("SELECT max(seq) FROM waiting").fetchone()
            return last

    def _check_room(self, size_bytes: int) -> None:
        if size_bytes > self._limit_bytes:
            raise SpoolFull(
                f"PostgreSQL is away and the spool {self._path} has reached its bound of {self._limit_bytes:,} bytes; "
                "bring the database back, or raise WORKLEDGER_SPOOL_LIMIT_BYTES",
                size_bytes=size_bytes,
                limit_bytes=self._limit_bytes,
            )

    def waiting(self, *, up_to: int | None = None) -> int:
        """How many changes wait, of all or of those up to a number."""
        if up_to is None:
            return self._count("SELECT count(*) FROM waiting")
        return self._count("SELECT count(*) FROM waiting WHERE seq <= ?", up_to)

    def newest(self) -> int:
        """The number of the newest change that waits; 0 when none does."""
        return self._count("SELECT coalesce(max(seq), 0) FROM waiting")

    def refused(self) -> int:
        """How many changes were refused when they were replayed; they are kept for a person to look at."""
        return self._count("SELECT count(*) FROM refused")

    def _count(self, query: str, *parameters: int) -> int:
        if not self._path.exists():
            return 0
        with self._lock, self._open() as database:
            (count,) = database.execute(query, parameters).fetchone()
            return count

    def drain(self, apply: Apply) -> int:
        """Replay what waits now, in order, and forget it once it is applied; returns how many were.

        One process drains at a time; another one that comes in between returns 0. What `apply` raises ends the
        round and leaves the rest in place.
        """
        drained = 0
        try:
            with exclusive(self._path.with_suffix(".lock"), timeout_s=0):
                newest = self.newest()
                while page := self._page(newest):
                    outcomes = apply([change for _, change in page])
                    self._forget(page, outcomes)
                    drained += len(page)
        except TimeoutError:
            return 0  # another process is at it
        return drained

    def _page(self, newest: int) -> list[tuple[int, Change]]:
        query = "SELECT seq, change FROM waiting WHERE seq <= ? ORDER BY seq LIMIT ?"
        with self._lock, self._open() as database:
            rows = database.execute(query, (newest, _PAGE)).fetchall()
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
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as database:
                yield database
        except sqlite3.OperationalError as error:
            raise SpoolFull(
                f"PostgreSQL is away and the spool {self._path} cannot be used: {error}",
                size_bytes=None,
                limit_bytes=None,
            ) from error
        except (sqlite3.DatabaseError, OSError) as error:
            raise StoreCorrupted(
                f"PostgreSQL is away and the spool {self._path} cannot be read: {error}", location=str(self._path)
            ) from error

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        try:
            database.executescript(_SCHEMA)
            database.execute("PRAGMA synchronous = FULL")
        except BaseException as error:
            database.close()
            if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
                return self._begin_anew(error)
            raise
        return database

    def _begin_anew(self, error: sqlite3.DatabaseError) -> sqlite3.Connection:
        """Put a file that is no database aside, where a person can look at it: recording has to go on."""
        aside = self._path.with_suffix(f".corrupt-{time.time_ns()}")
        self._path.rename(aside)
        logger.error("spool.corrupt path=%s reason=%s (`sqlite3 FILE .recover` may still read it)", aside, error)
        return self._connect()
