"""From a workflow's events to the lines of the training store that were made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from workledger.model.records import Event
    from workledger.training.shard_store import ShardStore

__all__ = ["TrainingLines", "positions_text", "training_lines"]

_WORKFLOW_ENDS: Final = frozenset({"workflow.completed", "workflow.failed", "workflow.cancelled"})
_TASK_ENDS: Final = frozenset({"task.completed", "task.failed", "task.cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingLines:
    """The lines of one record type in one range: the `position` of each, and the files of the store that have them."""

    store: str
    records: str
    files: list[str]
    positions: list[int]


def training_lines(store: ShardStore, events: Iterable[Event], *, kinds: Mapping[str, str]) -> list[TrainingLines]:
    """Where the lines made of these events are; `kinds` are the kinds of the executions by id.

    What has not been landed yet is left out.
    """
    from workledger.training.records import RecordType, type_of_kind
    from workledger.training.shard_store import ranges_of

    wanted: list[tuple[RecordType, int]] = []
    for event in events:
        if event.position is None:
            continue
        wanted.append((RecordType.EVENTS, event.position))
        if event.event_type in _WORKFLOW_ENDS:
            wanted.append((RecordType.WORKFLOWS, event.position))
        elif event.event_type in _TASK_ENDS:
            wanted.append((type_of_kind(kinds.get(event.entity_id, "task")), event.position))
    ranges = ranges_of(store)
    landed = [
        (record_type, found, position)
        for record_type, position in wanted
        if (found := _range_of(ranges, position)) is not None
    ]
    return [
        TrainingLines(
            store=store.name,
            records=record_type,
            files=sorted(file.path for file in store.entry(*found).files if file.record_type == record_type),
            positions=[position for _, _, position in group],
        )
        for (record_type, found), group in groupby(sorted(landed), key=lambda one: one[:2])
    ]


def _range_of(ranges: list[tuple[int, int]], position: int) -> tuple[int, int] | None:
    return next((found for found in ranges if found[0] <= position <= found[1]), None)


def positions_text(positions: list[int]) -> str:
    """Positions as short text: `3-7, 9, 12-14`."""
    starts = [0, *(n for n, (one, other) in enumerate(pairwise(positions), start=1) if other != one + 1)]
    spans = [positions[start:end] for start, end in zip(starts, [*starts[1:], len(positions)], strict=True)]
    return ", ".join(f"{span[0]}-{span[-1]}" if len(span) > 1 else f"{span[0]}" for span in spans if span)
