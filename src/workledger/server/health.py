"""When the ledger wants attention, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from workledger.log.consumers import Consumer
from workledger.operational.overview import DatabaseFacts, EventPartition, WorkerState
from workledger.server.views import Health, TrainingFacts

__all__ = ["judge"]

#: A consumer that is behind and has not moved for this long stands still.
STANDSTILL: Final = timedelta(minutes=1)
#: More events than this without a position mean that nobody sequences.
UNSEQUENCED: Final = 1000
#: Workers lost longer ago than this are history.
RECENTLY: Final = timedelta(hours=1)


def judge(
    *,
    head: int,
    unsequenced: int,
    consumers: Sequence[Consumer],
    workers: Sequence[WorkerState],
    training: TrainingFacts | None,
    training_fault: str | None,
    database: DatabaseFacts,
    partitions: Sequence[EventPartition],
) -> Health:
    """How the ledger is: `ok`, or `attention` and the reasons."""
    reasons = (
        *_about_log(unsequenced),
        *(reason for consumer in consumers for reason in _about_consumer(consumer, now=database.now)),
        *_about_workers(workers, now=database.now),
        *([f"the training store cannot be read: {training_fault}"] if training_fault else []),
    )
    return Health(
        status="attention" if reasons else "ok",
        reasons=reasons,
        head=head,
        unsequenced=unsequenced,
        consumers=tuple(consumers),
        workers=tuple(workers),
        training=training,
        database=database,
        partitions=tuple(partitions),
        now=database.now,
    )


def _about_log(unsequenced: int) -> Iterator[str]:
    if unsequenced > UNSEQUENCED:
        yield f"{unsequenced:,} events wait for a position: no sequencer runs. `workledger up` runs one"


def _about_consumer(consumer: Consumer, *, now: datetime) -> Iterator[str]:
    if consumer.lag > 0 and now - consumer.updated_at > STANDSTILL:
        yield (
            f"{consumer.name} is {consumer.lag:,} positions behind and has not moved since "
            f"{consumer.updated_at:%Y-%m-%d %H:%M:%S} UTC"
        )


def _about_workers(workers: Sequence[WorkerState], *, now: datetime) -> Iterator[str]:
    overdue = sum(worker.state == "overdue" for worker in workers)
    lost = sum(worker.lost_at is not None and now - worker.lost_at < RECENTLY for worker in workers)
    if overdue:
        yield f"{_workers(overdue)} missed the lease; what they run is failed as WorkerLost by the next reaper"
    if lost:
        yield f"{_workers(lost)} lost in the last hour"


def _workers(count: int) -> str:
    return f"{count} worker" if count == 1 else f"{count} workers"
