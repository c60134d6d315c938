"""The spool: where changes wait on this machine's disk while PostgreSQL is away.

An SQLite file in the home folder, shared by all processes that record there; every append is fsynced. Changes
carry their identity, so replaying them is harmless however often it is done. A file that is damaged is set aside
for a person to look at, and a new one begun: recording goes on.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from workledger.errors import SpoolFull, StoreCorrupted, WorkledgerError
from workledger.model.change import Change
from workledger.operational.apply import Outcome
from workledger.postgres._process import exclusive
from workledger.postgres.forks import forget_after_fork
from workledger.settings import Settings

__all__ = ["Spool", "make_spool"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# `held` is the sum of what waits, kept beside it: to add it up for every append would read the whole file.
_SCHEMA: Final = """
PRAGMA journal_mode = WAL;
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS waiting (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, size_bytes INTEGER NOT NULL, change BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS refused (seq INTEGER PRIMARY KEY, reason TEXT NOT NULL, change BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS held (one INTEGER PRIMARY KEY CHECK (one = 1), size_bytes INTEGER NOT NULL);
INSERT OR IGNORE INTO held SELECT 1, coalesce(sum(size_bytes), 0) FROM waiting;
COMMIT;
"""
_PAGE: Final = 200
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PRIMARY_CODE: Final = 0xFF

Apply = Callable[[Sequence[Change]], Sequence[Outcome | WorkledgerError]]


class Spool:
    """A bounded, durable queue of changes. Safe from any thread and process."""

    def __init__(self, path: Path, *, limit_bytes: int) -> None:
        self._path = path
        self._limit_bytes = limit_bytes
        self.forget_parent()
        forget_after_fork(self)

    def forget_parent(self) -> None:
        """In a forked child: a thread that held the lock is not here to let go of it."""
        self._lock = threading.Lock()

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self._path

    def append(self, changes: Sequence[Change]) -> int:
        """Keep changes, in order, durably, with one fsync for all of them.

        Returns the number under which the last of them waits. Raises `SpoolFull` at the bound, and when the disk is
        full or the file cannot be written.
        """
        rows = [(len(data), data) for data in map(msgspec.msgpack.encode, changes)]
        size_bytes = sum(size for size, _ in rows)

        def insert(database: sqlite3.Connection) -> int:
            with _transaction(database):
                (held,) = database.execute("SELECT size_bytes FROM held").fetchone()
                self._check_room(held + size_bytes)
                database.executemany("INSERT INTO waiting (size_bytes, change) VALUES (?, ?)", rows)
                database.execute("UPDATE held SET size_bytes = size_bytes + ?", (size_bytes,))
                (last,) = database.execute("SELECT max(seq) FROM waiting").fetchone()
                return last

        return self._use(insert)

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
        return self._use(lambda database: database.execute(query, parameters).fetchone()[0])

    def drain(self, apply: Apply) -> int:
        """Replay what waits now, in order, and forget it once it is applied; returns how many were.

        One process drains at a time; another one that comes in between returns 0. What `apply` raises ends the
        round and leaves the rest in place. What cannot be read any more is kept with what was refused.
        """
        drained = 0
        if not self._path.exists():
            return 0
        try:
            with exclusive(self._path.with_suffix(".lock"), timeout_s=0):
                newest = self.newest()
                while page := self._page(newest):
                    self._forget(page, _replayed(page, apply))
                    drained += len(page)
        except TimeoutError:
            return 0  # another process is at it
        return drained

    def _page(self, newest: int) -> list[tuple[int, bytes]]:
        query = "SELECT seq, change FROM waiting WHERE seq <= ? ORDER BY seq LIMIT ?"
        return self._use(lambda database: database.execute(query, (newest, _PAGE)).fetchall())

    def _forget(self, page: Sequence[tuple[int, bytes]], outcomes: Sequence[Outcome | WorkledgerError]) -> None:
        refused = [
            (seq, f"{type(outcome).__name__}: {outcome}", data)
            for (seq, data), outcome in zip(page, outcomes, strict=True)
            if isinstance(outcome, WorkledgerError)
        ]
        size_bytes = sum(len(data) for _, data in page)

        def move(database: sqlite3.Connection) -> None:
            with _transaction(database):
                database.executemany("INSERT OR REPLACE INTO refused (seq, reason, change) VALUES (?, ?, ?)", refused)
                database.executemany("DELETE FROM waiting WHERE seq = ?", [(seq,) for seq, _ in page])
                database.execute("UPDATE held SET size_bytes = max(size_bytes - ?, 0)", (size_bytes,))

        self._use(move)

    # -- the file -----------------------------------------------------------------------------------------------

    def _use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Work on the file; one that is damaged is set aside, and the work done on a new one."""
        with self._lock, self._translated():
            try:
                return self._once(work)
            except sqlite3.DatabaseError as error:
                if not _is_corrupt(error):
                    raise
                self._set_aside(error)
                return self._once(work)

    def _once(self, work: Callable[[sqlite3.Connection], T]) -> T:
        # A connection for each use: it is rare, and so nothing has to survive a fork.
        with self._open() as database:
            return work(database)

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, timeout=30, isolation_level=None)) as database:
            if not database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'held'").fetchone()[0]:
                database.executescript(_SCHEMA)
            database.execute("PRAGMA synchronous = FULL")
            yield database

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        """Move a damaged file out of the way, unless another process has done so meanwhile."""
        with exclusive(self._path.with_suffix(".repair"), timeout_s=30):
            if self._is_sound():
                return
            aside = self._path.with_suffix(f".corrupt-{time.time_ns()}")
            for suffix in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    self._path.with_name(self._path.name + suffix).rename(aside.with_name(aside.name + suffix))
        logger.error("spool.corrupt path=%s reason=%s (`sqlite3 FILE .recover` may still read it)", aside, error)

    def _is_sound(self) -> bool:
        try:
            return self._once(lambda database: database.execute("PRAGMA quick_check(1)").fetchone()[0]) == "ok"
        except sqlite3.DatabaseError:
            return False

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise SpoolFull(
                f"PostgreSQL is away and the spool {self._path} cannot be used: {error}. "
                "Bring the database back, or make the home folder writable",
                size_bytes=None,
                limit_bytes=None,
            ) from error
        except sqlite3.DatabaseError as error:
            raise StoreCorrupted(
                f"PostgreSQL is away and the spool {self._path} cannot be read: {error}", location=str(self._path)
            ) from error


def make_spool(settings: Settings) -> Spool | None:
    """The spool of these settings: one file per project in the home folder; None when it is turned off."""
    if settings.spool_limit_bytes <= 0:
        return None
    return Spool(settings.home / "spool" / f"{settings.project}.sqlite", limit_bytes=settings.spool_limit_bytes)


def _replayed(page: Sequence[tuple[int, bytes]], apply: Apply) -> list[Outcome | WorkledgerError]:
    """The outcome of each change of a page, in its order."""
    read = [_decoded(data) for _, data in page]
    whole = [change for change in read if isinstance(change, Change)]
    outcomes = iter(apply(whole) if whole else ())
    return [next(outcomes) if isinstance(change, Change) else change for change in read]


def _decoded(data: bytes) -> Change | StoreCorrupted:
    try:
        return msgspec.msgpack.decode(data, type=Change)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return StoreCorrupted(f"not a change any more: {error}", location="spool")


def _is_corrupt(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE in _CORRUPT


@contextmanager
def _transaction(database: sqlite3.Connection) -> Generator[None]:
    with database:
        database.execute("BEGIN IMMEDIATE")
        yield
