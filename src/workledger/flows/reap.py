"""The arrow from dead workers to the truth: what they left running is failed as `WorkerLost`.

A worker is declared lost first, by a change that its own heartbeat guards; only then is its work failed. Several
reapers may run at once: each loss is a guarded change, and the second one finds it done.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from workledger.errors import InvalidTransition
from workledger.flows.record import Recorder
from workledger.model import change as changes
from workledger.model.change import Change, Failure
from workledger.model.clock import Clock
from workledger.model.payload import Packer
from workledger.operational import reads
from workledger.postgres.connection import Connection

__all__ = ["Reaper", "reap"]

logger = logging.getLogger(__name__)


class Reaper:
    """Fails what dead workers left running, once it has seen for itself that they are silent.

    A worker is declared lost when its lease has passed by the server's clock and this reaper, never out of touch with
    the server meanwhile, has seen its heartbeat stand still for as long. So live workers are heard first after an
    outage, whoever comes back before them, and after a jump of the server's clock.
    """

    def __init__(self, recorder: Recorder, *, clock: Clock, pause_s: float) -> None:
        self._recorder = recorder
        self._clock = clock
        self._pause_s = pause_s
        self._looked_s: float | None = None
        self._seen: dict[str, tuple[str, float]] = {}

    def reap_once(self, connection: Connection) -> int:
        """Look at every worker, to be called every `pause_s`; returns how much was failed."""
        silent = self._silent(reads.watched_workers(connection))
        return _declare(silent, self._recorder, self._clock) + _fail_left(connection, self._recorder, self._clock)

    def _silent(self, workers: Iterable[tuple[str, str, float, bool]]) -> list[str]:
        now_s = self._clock.monotonic_s()
        away_s = float("inf") if self._looked_s is None else now_s - self._looked_s
        self._looked_s = now_s
        seen, self._seen = self._seen, {}
        silent: list[str] = []
        for worker_id, heartbeat, lease_s, lease_is_over in workers:
            before, since_s = seen.get(worker_id, ("", now_s))
            # A heartbeat is sent three times in a lease. Out of touch for longer than that beyond our own pause, we
            # cannot tell a worker that was silent from one that was not heard.
            if before != heartbeat or away_s > self._pause_s + lease_s / 3:
                since_s = now_s
            self._seen[worker_id] = (heartbeat, since_s)
            if lease_is_over and now_s - since_s >= lease_s:
                silent.append(worker_id)
        return silent


def reap(connection: Connection, recorder: Recorder, *, clock: Clock) -> int:
    """Fail what workers left running whose lease has passed, by the server's clock alone; returns how much."""
    overdue = [worker_id for worker_id, _, _, lease_is_over in reads.watched_workers(connection) if lease_is_over]
    return _declare(overdue, recorder, clock) + _fail_left(connection, recorder, clock)


def _declare(worker_ids: Iterable[str], recorder: Recorder, clock: Clock) -> int:
    declared = 0
    for worker_id in worker_ids:
        # Refused when a heartbeat came in between; then there is nothing to fail.
        if recorder.record(changes.change_worker("worker.lost", worker_id=worker_id, at=clock.now())).applied:
            logger.warning("worker.lost worker_id=%s", worker_id)
            declared += 1
    return declared


def _fail_left(connection: Connection, recorder: Recorder, clock: Clock) -> int:
    failed = 0
    for what, entity_id, workflow_id, worker_id, attempt in reads.lost_work(connection):
        change = _loss(what, entity_id, workflow_id, worker_id, attempt, clock=clock)
        try:
            applied = recorder.record(change).applied
        except InvalidTransition:
            continue  # it ended, or another reaper was first
        if applied:
            failed += 1
            logger.warning("worker.left worker_id=%s %s=%s", worker_id, what, entity_id)
    return failed


def _loss(
    what: str, entity_id: str, workflow_id: str | None, worker_id: str, attempt: int | None, *, clock: Clock
) -> Change:
    failure = Failure(
        error_type="WorkerLost", error=f"worker {worker_id} stopped sending heartbeats while this was running"
    )
    if what == "workflow":
        return changes.fail_workflow(
            workflow_id=entity_id, failure=failure, at=clock.now(), packer=Packer(), attempt=attempt
        )
    return changes.fail_execution(
        execution_id=entity_id, workflow_id=workflow_id or "", failure=failure, at=clock.now(), packer=Packer()
    )
