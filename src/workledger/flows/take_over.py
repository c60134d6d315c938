"""The arrow from an interrupted workflow to whoever continues it.

The order matters. Resuming comes first: it opens a new attempt, and from then on the old worker can start nothing
more. What it left running is failed next, so that it cannot end any of it either. Only what is completed then is
read as done.
"""

from __future__ import annotations

from collections.abc import Callable

from workledger.errors import InvalidTransition
from workledger.flows.record import Recorder
from workledger.log.sequencer import sequence
from workledger.model import change as changes
from workledger.model.change import Change, Failure
from workledger.model.clock import Clock
from workledger.model.payload import Packer
from workledger.model.records import TaskExecution, Workflow
from workledger.model.status import Status
from workledger.operational import reads
from workledger.operational.apply import Outcome
from workledger.postgres.connection import Connection

__all__ = ["Order", "claim", "is_being_run", "read_steps", "release"]

#: The log positions at which an execution began and ended; None where it has none.
Order = tuple[int | None, int | None]


def is_being_run(connection: Connection, workflow: Workflow) -> bool:
    """Whether a live worker is running a workflow."""
    if workflow.status != Status.RUNNING or workflow.worker_id is None:
        return False
    return reads.worker_is_alive(connection, workflow.worker_id)


def claim(workflow: Workflow, *, worker_id: str, commit: Callable[[Change], Outcome], clock: Clock) -> int:
    """Open a new attempt for a worker and return its number; `commit` must not put the change off.

    Raises `Superseded` when somebody else was first.
    """
    commit(
        changes.resume_workflow(
            workflow_id=workflow.workflow_id, attempt=workflow.attempt, at=clock.now(), worker_id=worker_id
        )
    )
    return workflow.attempt + 1


def read_steps(
    connection: Connection, recorder: Recorder, *, workflow_id: str, attempt: int, schema: str, clock: Clock
) -> tuple[dict[str, TaskExecution], dict[str, Order]]:
    """Fail what earlier attempts left running; then give what each step did so far, and the order of the log."""
    _fail_left_behind(connection, recorder, workflow_id=workflow_id, attempt=attempt, clock=clock)
    sequence(connection, schema=schema)
    return reads.recorded_steps(connection, workflow_id), reads.steps_order(connection, workflow_id)


def release(error: BaseException, *, workflow_id: str, attempt: int, worker_id: str, clock: Clock) -> Change:
    """The change that gives up a claim whose owner could not go on; another worker may take it over again."""
    failure = Failure(
        error_type="WorkerLost",
        error=f"worker {worker_id} took this over and could not go on: {type(error).__name__}: {error}",
    )
    return changes.fail_workflow(
        workflow_id=workflow_id, failure=failure, at=clock.now(), packer=Packer(strict=False), attempt=attempt
    )


def _fail_left_behind(
    connection: Connection, recorder: Recorder, *, workflow_id: str, attempt: int, clock: Clock
) -> None:
    failure = Failure(
        error_type="Superseded", error=f"the workflow was taken over (attempt {attempt}) while this was running"
    )
    left = reads.left_behind(connection, workflow_id, attempt=attempt)
    ended = recorder.record_each(
        [
            changes.fail_execution(
                execution_id=execution_id, workflow_id=workflow_id, failure=failure, at=clock.now(), packer=Packer()
            )
            for execution_id in left
        ]
    )
    for outcome in ended:
        # What ended by itself in between is done, and is read as that.
        if not isinstance(outcome, (Outcome, InvalidTransition)):
            raise outcome
