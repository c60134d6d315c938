"""The worker: this process, as the ledger knows it. One heartbeat for all its work."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Final

from workledger._version import __version__
from workledger.errors import WorkledgerError
from workledger.flows.reap import Reaper
from workledger.flows.record import Recorder
from workledger.model import change as changes
from workledger.model.clock import Clock
from workledger.model.ids import new_id
from workledger.operational import reads
from workledger.postgres.connection import Connection
from workledger.postgres.forks import forget_after_fork
from workledger.postgres.pool import ConnectionPool
from workledger.sdk.scribe import Scribe

__all__ = ["Worker"]

logger = logging.getLogger(__name__)

_AGAIN_S: Final = 1.0
_CATCH_UP_S: Final = 5.0


class Worker:
    """Registers this process on first use, and sends its heartbeat until `stop`.

    When its lease was missed (the process was paused) and others declared it lost, it goes on under a new id:
    what it was running then is refused with `Superseded`, what it starts afterwards is its own again.
    """

    def __init__(
        self, *, scribe: Scribe, recorder: Recorder, pool: ConnectionPool, clock: Clock, lease_s: float
    ) -> None:
        self._scribe = scribe
        self._recorder = recorder
        self._pool = pool
        self._clock = clock
        self._lease_s = lease_s
        self.forget_parent()
        forget_after_fork(self)

    def forget_parent(self) -> None:
        """In a forked child: it is a worker of its own, once it records."""
        self._worker_id: str | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._beaten = threading.Condition()
        self._asked = self._answered = 0
        self._stopping = False
        self._awake_s = 0.0
        self._thread: threading.Thread | None = None
        self._reaper = Reaper(self._recorder, clock=self._clock, pause_s=self._lease_s / 3)

    @property
    def worker_id(self) -> str:
        """The id under which this process works; registers it when it is new, or was declared lost in a pause."""
        worker_id = self._worker_id
        if worker_id is not None:
            now_s = self._clock.monotonic_s()
            if now_s - self._awake_s <= self._lease_s:
                self._awake_s = now_s
                return worker_id
            self._catch_up()
        with self._lock:
            if self._worker_id is None:
                self._worker_id = self._register()
                self._start_beating()
            return self._worker_id

    def _catch_up(self) -> None:
        """Nothing was heard of this process for longer than its lease: have a new heartbeat find out who we are now.

        Waits for a moment only. Where the database does not answer, the old id is as good as any.
        """
        with self._beaten:
            self._asked += 1
            asked = self._asked
            self._wake.set()
            self._beaten.wait_for(lambda: self._answered >= asked, _CATCH_UP_S)
        self._awake_s = self._clock.monotonic_s()

    def _register(self) -> str:
        worker_id = new_id()
        change = changes.change_worker(
            "worker.started",
            worker_id=worker_id,
            at=self._clock.now(),
            hostname=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            lease_s=self._lease_s,
        )
        self._scribe.record(change)
        self._awake_s = self._clock.monotonic_s()
        return worker_id

    def _start_beating(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._beat, name="workledger-heartbeat", daemon=True)
            self._thread.start()

    def _beat(self) -> None:
        pause_s = self._lease_s / 3
        while True:
            self._wake.wait(pause_s)
            self._wake.clear()
            if self._stopping:
                return
            asked, began_s = self._asked, self._clock.monotonic_s()
            # Unheard, it tries again soon: when the database is back, others begin to count.
            pause_s = self._lease_s / 3 if self._quietly(self.beat_once) else min(self._lease_s / 3, _AGAIN_S)
            # A heartbeat says that we were there when it was sent: we may have stood still since.
            self._awake_s = max(self._awake_s, began_s)
            with self._beaten:
                self._answered = asked
                self._beaten.notify_all()

    def beat_once(self) -> None:
        """Send one heartbeat, and fail what other workers left behind."""
        with self._pool.connection() as connection:
            worker_id = self._worker_id
            if worker_id is not None and self._is_ended(connection, worker_id):
                self._begin_anew(worker_id)
            self._reaper.reap_once(connection)
        self._scribe.look_after_spool()

    def _is_ended(self, connection: Connection, worker_id: str) -> bool:
        """Send the heartbeat; whether nobody takes it as ours any more.

        Where nothing is recorded of us, our start may still be buffered, or wait in the spool with all our work.
        """
        heard = reads.heartbeat(connection, worker_id)
        if heard == "unknown":
            self._scribe.flush()
            return not self._scribe.is_away and reads.heartbeat(connection, worker_id) != "alive"
        return heard == "ended"

    def _begin_anew(self, worker_id: str) -> None:
        """Go on under a new id, unless this process has none any more because it is stopping."""
        with self._lock:
            if self._worker_id == worker_id:
                logger.error("worker.superseded worker_id=%s (its lease was missed)", worker_id)
                self._worker_id = self._register()

    def stop(self) -> None:
        """Record that this worker stopped; idempotent."""
        self._stopping = True
        self._wake.set()
        with self._lock:
            worker_id, self._worker_id = self._worker_id, None
        if worker_id is not None:
            change = changes.change_worker("worker.stopped", worker_id=worker_id, at=self._clock.now())
            self._quietly(lambda: self._scribe.record(change))

    def _quietly(self, action: Callable[[], object]) -> bool:
        """Do it; False when it could not be done."""
        try:
            action()
        except WorkledgerError as error:
            logger.warning("worker.beat_failed error=%s", error)
            return False
        return True
