"""A training store of any kind compared with the log and, if asked for, refilled with what it lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from workledger.flows.repair_training import verify_and_repair
from workledger.flows.verify_training import TrainingReport, verify_training
from workledger.postgres.connection import Connection
from workledger.training.shard_store import has_shards
from workledger.training.store import TrainingStore

if TYPE_CHECKING:
    from workledger.training.lake import LakeStore

__all__ = ["verify_store"]

Progress = Callable[[int, int], None]


def verify_store(
    connection: Connection, store: TrainingStore, *, repair: bool = False, on_progress: Progress | None = None
) -> tuple[TrainingReport, dict[str, int]]:
    """Compare a store with the log; gives what is wrong, and how much of what was put right before.

    Safe while others record and land. `on_progress` hears the position reached and the last one.
    """
    if not has_shards(store):
        return _verify_lake(connection, cast("LakeStore", store), repair=repair, on_progress=on_progress)
    if not repair:
        return verify_training(connection, store, on_progress=on_progress), {}
    report, repaired = verify_and_repair(connection, store, on_progress=on_progress)
    counts = {
        "files": len(repaired.files),
        "entries of the manifest": len(repaired.entries),
        "files that belonged to nothing": len(repaired.removed),
    }
    return report, {noun: number for noun, number in counts.items() if number}


def _verify_lake(
    connection: Connection, store: LakeStore, *, repair: bool, on_progress: Progress | None
) -> tuple[TrainingReport, dict[str, int]]:
    from workledger.flows import verify_lake as lake  # noqa: PLC0415  needs pyarrow

    report = lake.verify_lake(connection, store, on_progress=on_progress)
    if report.ok or not repair:
        return report, {}
    repaired = lake.repair_lake(connection, store, on_progress=on_progress)
    return lake.verify_lake(connection, store, on_progress=on_progress), {"stretches of a table": repaired}
