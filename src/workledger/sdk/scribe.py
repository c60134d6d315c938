"""The scribe: takes every change of this process to where it belongs.

Usually that is the recorder, which commits it. Inside `joining` it is the caller's own transaction. With
`durability="buffered"` it is the recorder's queue. And while PostgreSQL is away it is the spool: after the first
failure nobody waits for the database again, until what was spooled has been replayed in order.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from workledger.errors import DatabaseUnavailable, InvalidInput, WorkledgerError
from workledger.flows.record import Recorder, apply_joining
from workledger.model.change import Change
from workledger.operational.apply import Outcome
from workledger.postgres.connection import Connection, as_connection
from workledger.postgres.forks import forget_after_fork
from workledger.sdk.spool import Spool

__all__ = ["Scribe", "Tally"]

logger = logging.getLogger(__name__)

_RETRY_S: Final = 0.5


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
        self._project = project
        self._spool = spool
        self._buffered = buffered
        self._joined: ContextVar[Connection | None] = ContextVar("workledger_joined", default=None)
        recorder.is_held = lambda: self._is_away
        self.forget_parent()
        forget_after_fork(self)

    def forget_parent(self) -> None:
        """In a forked child: begin anew."""
        self._away = threading.Lock()
        self._is_away = False
        self._closing = threading.Event()
        self._drainer: threading.Thread | None = None
        if self._spool is not None and self._spool.waiting():
            self._go_away()  # a process before us could not replay what it spooled

    # -- recording ----------------------------------------------------------------------------------------------

    def record(self, change: Change, *, wait: bool = False) -> Outcome:
        """Take one change to its place; `wait=True` needs the answer, and so is never buffered."""
        joined = self._joined.get()
        if joined is not None:
            return apply_joining(joined, change, schema=self._project)
        if self._keep_aside([change]):
            return Outcome(applied=False)
        if self._buffered and not wait:
            self.tally.buffered += 1
            self._recorder.record_later(change, on_refused=self._late_refusal)
            return Outcome(applied=False)
        try:
            return self._recorder.record(change)
        except DatabaseUnavailable as error:
            return self._spool_instead(change, error)

    async def record_async(self, change: Change, *, wait: bool = False) -> Outcome:
        """The same without blocking the event loop."""
        if self._joined.get() is not None or (self._buffered and not wait and not self._is_away):
            return self.record(change, wait=wait)
        if self._is_away:
            return await asyncio.to_thread(self.record, change, wait=wait)
        try:
            return await self._recorder.record_async(change)
        except DatabaseUnavailable as error:
            return await asyncio.to_thread(self._spool_instead, change, error)

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

    def flush(self) -> None:
        """Return when everything buffered is committed (or spooled)."""
        self._recorder.flush()

    def close(self, *, timeout_s: float = 5.0) -> None:
        """Flush, give the spool a last chance, and close the connection."""
        self._recorder.flush()
        self._closing.set()
        if (drainer := self._drainer) is not None:
            drainer.join(timeout_s)
        self._recorder.close()

    # -- while PostgreSQL is away -------------------------------------------------------------------------------

    def _keep_aside(self, changes: list[Change]) -> bool:
        """Spool changes if the database is away; False when it is there."""
        if not self._is_away or self._spool is None:
            return False
        with self._away:
            if not self._is_away:
                return False
            self._spool.append(changes)
            self.tally.spooled += len(changes)
            return True

    def _spool_instead(self, change: Change, error: DatabaseUnavailable) -> Outcome:
        if self._spool is None:
            raise error
        with self._away:
            self._spool.append([change])
            self.tally.spooled += 1
            if not self._is_away:
                logger.warning("record.spooling path=%s reason=%s", self._spool.path, error)
            self._go_away()
        return Outcome(applied=False)

    def _late_refusal(self, change: Change, error: WorkledgerError) -> None:
        if isinstance(error, DatabaseUnavailable) and self._spool is not None:
            try:
                self._spool_instead(change, error)
            except WorkledgerError as full:
                error = full  # whoever comes next is told so; for this one nobody waits
            else:
                return
        self.tally.refused += 1
        logger.error("record.refused event_type=%s entity_id=%s reason=%s", change.event_type, change.entity_id, error)

    def look_after_spool(self) -> None:
        """Replay what another process left in the spool of this home, if there is anything."""
        if self._spool is not None and not self._is_away and self._spool.waiting():
            with self._away:
                self._go_away()

    def _go_away(self) -> None:
        self._is_away = True
        if self._drainer is None:
            self._drainer = threading.Thread(target=self._drain, name="workledger-spool", daemon=True)
            self._drainer.start()

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
            count = self._spool.drain(self._recorder.record_each)
            with self._away:
                # Nothing is recorded under this lock: whoever leads the recorder may be waiting for it to spool.
                self._is_away = self._spool.waiting() > 0
                if not self._is_away:
                    self._drainer = None
            self.tally.refused += self._spool.refused() - refused
        except WorkledgerError as error:
            logger.debug("record.still_away reason=%s", error)
            return False
        if not self._is_away:
            logger.warning("record.direct_again replayed=%d", count)
        return not self._is_away
