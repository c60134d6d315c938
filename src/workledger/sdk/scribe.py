"""The scribe: takes every change of this process to where it belongs.

Usually that is the recorder, which commits it. Inside `joining` it is the caller's own transaction. With
`durability="buffered"` it is the recorder's queue. And while PostgreSQL is away it is the spool: after the first
failure nobody waits for the database again, until what was spooled has been replayed in order.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from workledger.errors import DatabaseUnavailable, InvalidInput, SpoolFull, StoreCorrupted, WorkledgerError
from workledger.flows.record import Recorder, apply_joining
from workledger.model.change import Change
from workledger.operational.apply import Outcome
from workledger.postgres.connection import Connection, as_connection
from workledger.postgres.forks import forget_after_fork
from workledger.sdk.spool import Spool

__all__ = ["Scribe", "Tally"]

logger = logging.getLogger(__name__)

_RETRY_S: Final = 0.5
_GATE_S: Final = 1.0
_LAST_ROUNDS: Final = 5
_CLAIM_S: Final = 5.0
_POLL_S: Final = 0.02


@dataclass(slots=True)
class Tally:
    """What a process has to know about changes nobody waited for."""

    buffered: int = 0
    spooled: int = 0
    refused: int = 0


class Scribe:
    """Records changes. Answers with their outcome; `Outcome(applied=False)` when it has to be found out later."""

    def __init__(self, recorder: Recorder, *, project: str, spool: Spool | None = None, buffered: bool = False) -> None:
        self.tally = Tally()
        self._recorder = recorder
        #: The PostgreSQL schema of the project.
        self.project = project
        self._spool = spool
        self._buffered = buffered
        self._joined: ContextVar[Connection | None] = ContextVar("workledger_joined", default=None)
        self._is_away = False
        self._newest = 0
        if spool is not None:
            recorder.is_held = lambda: self._is_away
            recorder.when_away = self._go_away_with
        self.forget_parent()
        forget_after_fork(self)
        self.look_after_spool()  # a process before us may not have been able to replay what it spooled

    def forget_parent(self) -> None:
        """In a forked child: what the parent spooled goes first here as well; its threads and locks are gone."""
        self._away = threading.Lock()
        self._gate = threading.Event()
        self._gate.set()
        self._closing = threading.Event()
        self._drainer: threading.Thread | None = None

    # -- recording ----------------------------------------------------------------------------------------------

    def record(self, change: Change, *, wait: bool = False) -> Outcome:
        """Take one change to its place; `wait=True` needs the answer, and so is never buffered."""
        joined = self._joined.get()
        if joined is not None:
            return apply_joining(joined, change, schema=self.project)
        while not self._keep_aside(change):
            if self._buffered and not wait:
                if self._recorder.record_later(change, on_refused=self._late_refusals):
                    self.tally.buffered += 1
                    break
                continue  # PostgreSQL went away this very moment
            try:
                return self._recorder.record(change)
            except DatabaseUnavailable:
                if self._spool is None:
                    raise
        return Outcome(applied=False)

    def claim(self, change: Change) -> Outcome:
        """Commit a change now, on its own, or raise `DatabaseUnavailable`: whoever claims work acts on the answer.

        What is spooled goes first, and is waited for a moment.
        """
        deadline_s = time.monotonic() + _CLAIM_S
        while self._is_away and time.monotonic() < deadline_s:
            self._closing.wait(_POLL_S)
        return self._recorder.record(change)

    async def record_async(self, change: Change, *, wait: bool = False) -> Outcome:
        """The same without blocking the event loop."""
        if self._joined.get() is not None or (self._buffered and not wait and not self._is_away):
            return self.record(change, wait=wait)
        if not self._is_away:
            try:
                return await self._recorder.record_async(change)
            except DatabaseUnavailable:
                if self._spool is None:
                    raise
        return await asyncio.to_thread(self.record, change, wait=wait)

    @contextmanager
    def joining(self, connection: Any) -> Generator[None]:
        """Make every change recorded in this block part of the caller's transaction.

        Takes a psycopg connection, or a SQLAlchemy connection or session that runs on psycopg.
        """
        joined = as_connection(connection)
        if joined.autocommit and joined.info.transaction_status.name == "IDLE":
            raise InvalidInput(
                "the connection to join is in autocommit mode and has no transaction; open one first, for example "
                "with `with connection.transaction():`",
                field="connection",
                value="autocommit",
                limit="in a transaction",
            )
        token = self._joined.set(joined)
        try:
            yield
        finally:
            self._joined.reset(token)

    @property
    def is_joined(self) -> bool:
        """Whether the calling code records inside a transaction of its own."""
        return self._joined.get() is not None

    @property
    def is_away(self) -> bool:
        """Whether changes wait in the spool, so that none may go direct."""
        return self._is_away

    def flush(self) -> None:
        """Return when everything buffered is committed (or spooled)."""
        if self._is_away:
            with self._away:  # whoever declares PostgreSQL away spools what is buffered before it lets go of this
                if self._is_away:
                    return
        self._recorder.flush()

    def close(self, *, timeout_s: float = 5.0) -> None:
        """Flush, give the spool a last chance, and close the connection."""
        self.flush()
        self._closing.set()
        if (drainer := self._drainer) is not None:
            drainer.join(timeout_s)
        self._recorder.close()

    # -- while PostgreSQL is away -------------------------------------------------------------------------------

    # Only whoever leads the recorder declares PostgreSQL away. So no batch is under way then, and what waits in the
    # recorder's queue can be spooled before anything that comes later.

    def _keep_aside(self, change: Change) -> bool:
        """Spool a change if the database is away; False when it is there."""
        if not self._is_away or self._spool is None:
            return False
        self._gate.wait(_GATE_S)
        with self._away:
            if not self._is_away:
                return False
            self._append(self._spool, [change])
            self._ensure_drainer()
            return True

    def _append(self, spool: Spool, changes: list[Change]) -> None:
        self._newest = spool.append(changes)
        self.tally.spooled += len(changes)

    def _go_away_with(self, error: DatabaseUnavailable, buffered: list[Change]) -> None:
        """PostgreSQL is away: spool what was buffered, and from now on everything."""
        assert self._spool is not None  # noqa: S101  for the type checker; see __init__
        if not self._is_away:
            logger.warning("record.spooling path=%s reason=%s", self._spool.path, error)
        with self._away:
            self._is_away = True
            changes = buffered + self._recorder.take_buffered()
            kept = self._spool_in_order(self._spool, changes)
            self._ensure_drainer()
            self._late_refusals([(change, error) for change in changes[kept:]])

    def _spool_in_order(self, spool: Spool, changes: list[Change]) -> int:
        """Spool changes nobody waits for, at once; where that is too much, from the first on. Returns how many."""
        for size in (len(changes), 1):
            kept = 0
            with suppress(SpoolFull, StoreCorrupted):  # whoever comes next is told so
                while kept < len(changes):
                    self._append(spool, changes[kept : kept + size])
                    kept += size
            if kept:
                return kept
        return 0

    def _late_refusals(self, refused: Sequence[tuple[Change, WorkledgerError]]) -> None:
        for change, error in refused:
            self.tally.refused += 1
            logger.error(
                "record.refused event_type=%s entity_id=%s reason=%s", change.event_type, change.entity_id, error
            )

    def look_after_spool(self) -> None:
        """Replay what another process left in the spool of this home, if there is anything."""
        if self._spool is None or self._is_away or not self._spool.newest():
            return
        with self._recorder.leading():
            self._newest = max(self._newest, self._spool.newest())
            self._go_away_with(DatabaseUnavailable("another process left changes behind"), [])

    def _ensure_drainer(self) -> None:
        if self._drainer is None:
            drainer = threading.Thread(target=self._drain, name="workledger-spool", daemon=True)
            with suppress(RuntimeError):  # the interpreter is ending; the next process replays what is spooled
                drainer.start()
                self._drainer = drainer

    def _drain(self) -> None:
        """Try until PostgreSQL is back and the spool is empty; then recording is direct again."""
        while True:
            last = self._closing.is_set()
            if self._drained() or last:
                return
            self._closing.wait(_RETRY_S)

    def _drained(self) -> bool:
        if self._spool is None:
            return True
        try:
            refused = self._spool.refused()
            count = self._replay(self._spool)
            self.tally.refused += self._spool.refused() - refused
        except WorkledgerError as error:
            logger.debug("record.still_away reason=%s", error)
            return False
        except Exception:
            logger.exception("record.not_replayed")  # and tried again: without this thread nothing is ever replayed
            return False
        if count is not None:
            logger.warning("record.direct_again replayed=%d", count)
        return count is not None

    def _replay(self, spool: Spool) -> int | None:
        """Replay what waits; gives how many that were once the last of ours is through, else None."""
        self._recorder.check()
        count = spool.drain(self._recorder.record_each)
        if count:
            self._gate.clear()  # newcomers wait for a moment: under steady load the end would never be reached
        try:
            for _ in range(_LAST_ROUNDS):
                if self._is_back(spool):
                    return count
                count += spool.drain(self._recorder.record_each)
        finally:
            self._gate.set()
        return None

    def _is_back(self, spool: Spool) -> bool:
        with self._away:
            # Nothing is recorded under this lock: whoever leads the recorder may be waiting for it to spool.
            self._is_away = spool.waiting(up_to=self._newest) > 0
            if not self._is_away:
                self._drainer = None
            return not self._is_away
