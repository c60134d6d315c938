"""From events to lines: what each of the four record types says about a stretch of the log.

The lines of a stretch depend on nothing but the log up to its end. Beginnings and folds that are kept from one
stretch to the next only save looking them up: what was never seen here, or was dropped to bound memory, is read
from the log as it was at that position. A stretch that does not follow the one before finds nothing kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from workledger.training import executions, workflows
from workledger.training.executions import NULL, UNKNOWN, Started, execution_line, read_started
from workledger.training.log_lines import Line, LogEvent, LogLines
from workledger.training.records import RecordType, type_of_kind
from workledger.training.references import Resolver
from workledger.training.workflows import WorkflowFold

__all__ = ["Deriver"]

_KEPT_BYTES: Final = 32 * 1024 * 1024
_WORKFLOW_EVENTS: Final = frozenset({"workflow.created", "workflow.started", "workflow.progressed"}) | {
    "workflow.resumed",
    "workflow.cancel_requested",
    *workflows.FINISHED,
}
_RELEVANT: Final = _WORKFLOW_EVENTS | {"task.started", *executions.FINISHED}
_FINISHED: Final = frozenset({*workflows.FINISHED, *executions.FINISHED})

_decode = msgspec.json.Decoder(LogEvent).decode


class Deriver:
    """Makes lines of events, stretch by stretch."""

    def __init__(self, log: LogLines) -> None:
        self._log = log
        self._resolver = Resolver(log.payloads)
        self._pending_possible = False
        self._forget()

    def _forget(self) -> None:
        self._started: _Kept[Started] = _Kept(_KEPT_BYTES)
        self._folds: _Kept[WorkflowFold] = _Kept(_KEPT_BYTES)
        self._upto: int | None = None

    def derive(self, events: Sequence[Line]) -> Iterator[tuple[RecordType, list[bytes]]]:
        """Give the lines of these events, each record type's in ascending order of position, in lots."""
        if not events:
            return
        if self._upto != events[0][0] - 1:
            self._forget()
        self._upto = None
        for lot in self._resolver.expand([data for _, _, data in events], nested="payload"):
            yield RecordType.EVENTS, lot
        relevant = [_decode(data) for _, event_type, data in events if event_type in _RELEVANT]
        self._look_up(relevant, upto=events[0][0] - 1)
        derived: dict[RecordType, list[bytes]] = {}
        for event in relevant:
            if (made := self._take(event)) is not None:
                derived.setdefault(made[0], []).append(made[1])
        self._upto = events[-1][0]
        for record_type, lines in derived.items():
            for lot in self._resolver.expand(lines):
                yield record_type, lot

    def _take(self, event: LogEvent) -> tuple[RecordType, bytes] | None:
        if event.event_type in executions.FINISHED:
            return self._finish_execution(event)
        if event.event_type == "task.started":
            self._start_execution(event)
            return None
        return self._take_workflow(event)

    def _start_execution(self, event: LogEvent) -> None:
        started = read_started(event)
        self._started.put(event.entity_id, started)
        fold = self._folds.get(event.workflow_id)
        if fold is not None and started.is_step:
            fold.take_start(event.position, started)

    def _finish_execution(self, event: LogEvent) -> tuple[RecordType, bytes]:
        started = self._started.pop(event.entity_id)
        if started is None:
            started = self._look_up_starts([event.entity_id], upto=event.position - 1).get(event.entity_id, UNKNOWN)
        fold = self._fold(event) if event.workflow_id is not None else None
        line = execution_line(event, started, conversation_id=fold.conversation_id if fold else NULL)
        if fold is not None and started.is_step and event.event_type == "task.completed":
            fold.completed_steps += 1
        return type_of_kind(started.kind), line

    def _take_workflow(self, event: LogEvent) -> tuple[RecordType, bytes] | None:
        finished = event.event_type in workflows.FINISHED
        fold = self._folds.get(event.entity_id)
        if fold is None:
            if event.event_type == "workflow.created" or self._is_beginning(event):
                fold = WorkflowFold(event.entity_id)
            elif finished:
                fold = self._fold(event)
            else:
                return None
        fold.take(event)
        if not finished:
            self._folds.put(event.entity_id, fold)
            return None
        # Whoever resumes it, or comes late to it, is rare enough to read its past again.
        self._folds.pop(event.entity_id)
        return RecordType.WORKFLOWS, fold.line(event)

    def _is_beginning(self, event: LogEvent) -> bool:
        return event.event_type == "workflow.started" and not self._pending_possible

    def _fold(self, event: LogEvent) -> WorkflowFold:
        """Give what the event's workflow had come to just before it."""
        workflow_id = event.workflow_id if event.event_type in executions.FINISHED else event.entity_id
        fold = self._folds.get(workflow_id)
        if fold is None:
            self._look_up_folds([workflow_id], upto=event.position - 1)
            fold = self._folds.get(workflow_id)
        return fold or WorkflowFold(workflow_id)

    # -- what came before -------------------------------------------------------------------------------------

    def _look_up(self, events: Iterable[LogEvent], *, upto: int) -> None:
        """Read in one go, as it was at `upto`, what these events need and nobody has kept."""
        starting: set[str | None] = set()
        beginning: set[str | None] = set()
        executions_: dict[str | None, None] = {}
        workflows_: dict[str | None, None] = {}
        self._notice_pending(events)
        for event in events:
            if event.event_type == "task.started":
                starting.add(event.entity_id)
            elif event.event_type == "workflow.created" or self._is_beginning(event):
                beginning.add(event.entity_id)
            if event.event_type in executions.FINISHED and event.entity_id not in starting:
                executions_[event.entity_id] = None
            workflow_id = event.entity_id if event.event_type in _WORKFLOW_EVENTS else event.workflow_id
            needed = event.event_type in _FINISHED or event.event_type == "workflow.started"
            if needed and workflow_id not in beginning:
                workflows_[workflow_id] = None
        self._look_up_starts([one for one in executions_ if self._started.get(one) is None], upto=upto)
        self._look_up_folds([one for one in workflows_ if self._folds.get(one) is None], upto=upto)

    def _notice_pending(self, events: Iterable[LogEvent]) -> None:
        """A `workflow.started` is a beginning unless a `workflow.created` came before, which few programs use."""
        if not self._pending_possible and any(event.event_type == "workflow.started" for event in events):
            self._pending_possible = self._log.any_created()

    def _look_up_starts(self, execution_ids: Sequence[str | None], *, upto: int) -> dict[str | None, Started]:
        known = [one for one in execution_ids if one is not None]
        found: dict[str | None, Started] = {}
        if known:
            for execution_id, event in self._log.started(known, upto=upto).items():
                found[execution_id] = read_started(event)
                self._started.put(execution_id, found[execution_id])
        return found

    def _look_up_folds(self, workflow_ids: Sequence[str | None], *, upto: int) -> None:
        known = [one for one in workflow_ids if one is not None]
        if not known:
            return
        folds = {workflow_id: WorkflowFold(workflow_id) for workflow_id in known}
        for event in self._log.workflow_history(known, upto=upto):
            folds[event.entity_id or ""].take(event)
        for workflow_id, steps in self._log.steps_history(known, upto=upto).items():
            folds[workflow_id].take_steps(steps)
        for workflow_id, fold in folds.items():
            self._folds.put(workflow_id, fold)


class _Sized(Protocol):
    @property
    def size_bytes(self) -> int: ...


S = TypeVar("S", bound=_Sized)


class _Kept(Generic[S]):
    """What was needed last, up to a number of bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._size_bytes = 0
        self._kept: OrderedDict[str | None, tuple[S, int]] = OrderedDict()

    def get(self, key: str | None) -> S | None:
        found = self._kept.get(key)
        return found[0] if found is not None else None

    def pop(self, key: str | None) -> S | None:
        found = self._kept.pop(key, None)
        if found is None:
            return None
        self._size_bytes -= found[1]
        return found[0]

    def put(self, key: str | None, value: S) -> None:
        self.pop(key)
        size_bytes = value.size_bytes
        self._kept[key] = (value, size_bytes)
        self._size_bytes += size_bytes
        while self._size_bytes > self._limit_bytes and len(self._kept) > 1:
            _, (_, dropped) = self._kept.popitem(last=False)
            self._size_bytes -= dropped
