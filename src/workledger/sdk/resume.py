"""What a workflow's tasks did before it was interrupted, and the check that the code still does the same."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from workledger.errors import Conflict, ReplayMismatch
from workledger.model.records import TaskExecution
from workledger.model.status import Status

__all__ = ["AlreadyCompleted", "Recorded"]


class AlreadyCompleted(Conflict):
    """The workflow with this id is completed; `workflow` is its row."""


class Recorded:
    """The recorded steps of an interrupted workflow, given out as its code asks for them again.

    A step is refused when it is called with other arguments, or before a step that had been finished when it
    began: what was recorded in order must be asked for in that order. Steps that overlapped may swap. `order` has the
    log positions at which each execution began and ended; no clock is asked.
    """

    def __init__(
        self, steps: Mapping[str, TaskExecution], order: Mapping[str, tuple[int | None, int | None]] | None = None
    ) -> None:
        self._steps = dict(steps)
        self._order = dict(order or {})
        self._asked: set[str] = set()
        self._lock = threading.Lock()

    def take(self, step_key: str, *, input_digest: str) -> TaskExecution | None:
        """The recorded attempt for this call; None when it was never begun. Raises `ReplayMismatch`."""
        if not self._steps:
            return None
        step = self._steps.get(step_key)
        if step is None:
            return None
        with self._lock:
            self._check_order(step_key, step)
            self._asked.add(step_key)
        if step.status == Status.COMPLETED and step.input_digest != input_digest:
            raise ReplayMismatch(
                f"step {step_key!r} was recorded with other arguments than it is called with now; a resumed workflow "
                "must call its tasks as before. Start it under a new id, or undo the change of the code",
                step=step_key,
                recorded=step.input_digest,
                found=input_digest,
            )
        return step

    def check_complete(self) -> None:
        """At the end: raise `ReplayMismatch` when a step that was completed before was not asked for."""
        missed = sorted(
            key
            for key, step in self._steps.items()
            if step.status == Status.COMPLETED and step.parent_execution_id is None and key not in self._asked
        )
        if missed:
            raise ReplayMismatch(
                f"step {missed[0]!r} was completed before, and the resumed workflow ended without calling it; "
                "the sequence of tasks has changed",
                step=missed[0],
                recorded="completed",
                found=None,
            )

    def _check_order(self, step_key: str, step: TaskExecution) -> None:
        began, _ = self._order.get(step.execution_id, (None, None))
        if began is None:
            return
        for key, other in self._steps.items():
            _, ended = self._order.get(other.execution_id, (None, None))
            if (
                key not in self._asked
                and other.status == Status.COMPLETED
                and other.parent_execution_id == step.parent_execution_id
                and ended is not None
                and key != step_key
                and ended < began
            ):
                raise ReplayMismatch(
                    f"step {step_key!r} is called before {key!r}, which had been finished first; "
                    "the sequence of tasks has changed",
                    step=step_key,
                    recorded=key,
                    found=step_key,
                )
