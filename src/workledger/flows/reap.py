"""The arrow from dead workers to the truth: what they left running is failed as `WorkerLost`.

Several reapers may run at once: each loss is a guarded change, and the second one finds it done.
"""

from __future__ import annotations

import logging

from workledger.errors import InvalidTransition
from workledger.flows.record import Recorder
from workledger.model import change as changes
from workledger.model.change import Change, Failure
from workledger.model.clock import Clock
from workledger.model.payload import Packer
from workledger.operational import reads
from workledger.postgres.connection import Connection

__all__ = ["reap"]

logger = logging.getLogger(__name__)


def reap(connection: Connection, recorder: Recorder, *, clock: Clock) -> int:
    """Fail what workers left running whose lease has passed; returns how much was failed."""
    reaped = 0
    for what, entity_id, workflow_id, worker_id, attempt in reads.lost_work(connection):
        change = _loss(what, entity_id, workflow_id, worker_id, attempt, clock=clock)
        try:
            applied = recorder.record(change).applied
        except InvalidTransition:
            continue  # it ended, or another reaper was first
        if applied:
            reaped += 1
            logger.warning("worker.lost worker_id=%s %s=%s", worker_id, what, entity_id)
    return reaped


def _loss(
    what: str, entity_id: str, workflow_id: str | None, worker_id: str, attempt: int | None, *, clock: Clock
) -> Change:
    if what == "worker":
        return changes.change_worker("worker.lost", worker_id=worker_id, at=clock.now())
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
