"""The worker: this process, as the ledger knows it. One heartbeat for all its work."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable

from workledger._version import __version__
from workledger.errors import WorkledgerError
from workledger.flows.reap import reap
from workledger.flows.record import Recorder
from workledger.model import change as changes
from workledger.model.clock import Clock
from workledger.model.ids import new_id
from workledger.operational import reads
from workledger.postgres.forks import forget_after_fork
from workledger.postgres.pool import ConnectionPool
from workledger.sdk.scribe import Scribe

__all__ = ["Worker"]

logger = logging.getLogger(__name__)


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
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def worker_id(self) -> str:
        """The id under which this process works; registers it when it is new."""
        if self._worker_id is not None:
            return self._worker_id
        with self._lock:
            if self._worker_id is None:
                self._worker_id = self._register()
                self._start_beating()
            return self._worker_id

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
        return worker_id

    def _start_beating(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._beat, name="workledger-heartbeat", daemon=True)
            self._thread.start()

    def _beat(self) -> None:
        while not self._stopping.wait(self._lease_s / 3):
            self._quietly(self.beat_once)

    def beat_once(self) -> None:
        """Send one heartbeat, and fail what other workers left behind."""
        with self._pool.connection() as connection:
            if self._worker_id is not None and not reads.heartbeat(connection, self._worker_id):
                logger.error("worker.superseded worker_id=%s (its lease was missed)", self._worker_id)
                with self._lock:
                    self._worker_id = self._register()
            reap(connection, self._recorder, clock=self._clock)
        self._scribe.look_after_spool()

    def stop(self) -> None:
        """Record that this worker stopped; idempotent."""
        self._stopping.set()
        with self._lock:
            worker_id, self._worker_id = self._worker_id, None
        if worker_id is not None:
            change = changes.change_worker("worker.stopped", worker_id=worker_id, at=self._clock.now())
            self._quietly(lambda: self._scribe.record(change))

    def _quietly(self, action: Callable[[], object]) -> None:
        try:
            action()
        except WorkledgerError as error:
            logger.warning("worker.beat_failed error=%s", error)
