"""Everything that loops, in threads of one process: each is opened, stepped, and opened again after a failure.

A loop that fails says so once, tries again ever more rarely, and says when it is well again; the others go on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final, Self

from workledger.errors import WorkledgerError

__all__ = ["Loop", "Step", "Supervisor"]

logger = logging.getLogger(__name__)

#: Does what there is to do and returns how much that was; 0 has the loop pause.
Step = Callable[[], int]

_FIRST_PAUSE_S: Final = 0.5
_MAX_PAUSE_S: Final = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """One thing that goes on for ever. `open` gives the step and what it needs, and lets go of it at the end.

    It is given the event that is set when the loop has to end, for steps that last.
    """

    name: str
    open: Callable[[threading.Event], AbstractContextManager[Step]]
    pause_s: float = 0.2
    of: str = ""

    @property
    def title(self) -> str:
        """The name, and what it is of where there are several of that name."""
        return f"{self.name} {self.of}".rstrip()


@dataclass(slots=True, kw_only=True)
class _State:
    """How a loop is: the error it last failed with, until it is well again."""

    error: str | None = None
    failures: int = 0
    steps: int = 0


@dataclass(slots=True)
class Supervisor:
    """Runs loops until it is told to stop. A context manager: inside the block, they run."""

    loops: Sequence[Loop]
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list[threading.Thread])
    _states: dict[str, _State] = field(default_factory=dict[str, _State])

    def start(self) -> None:
        """Start every loop in a thread of its own."""
        for loop in self.loops:
            self._states[loop.title] = state = _State()
            thread = threading.Thread(
                target=self._run, args=(loop, state), name=f"workledger-{loop.title}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def stop(self, *, timeout_s: float = 15.0) -> list[str]:
        """Have every loop finish its step and end; returns the names of those that did not in time."""
        self._stop.set()
        deadline_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(deadline_s - time.monotonic(), 0))
        return [thread.name.removeprefix("workledger-") for thread in self._threads if thread.is_alive()]

    def errors(self) -> dict[str, str]:
        """The loops that do not work at the moment, and why."""
        return {name: state.error for name, state in self._states.items() if state.error is not None}

    def steps(self) -> dict[str, int]:
        """How often each loop has come round."""
        return {name: state.steps for name, state in self._states.items()}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self, loop: Loop, state: _State) -> None:
        while not self._stop.is_set():
            try:
                with loop.open(self._stop) as step:
                    self._step_on(loop, step, state)
            except Exception as error:  # noqa: BLE001  whatever a loop dies of, the others and its next try go on
                _note_failure(loop, state, error)
                self._stop.wait(min(_FIRST_PAUSE_S * 2 ** min(state.failures - 1, 10), _MAX_PAUSE_S))

    def _step_on(self, loop: Loop, step: Step, state: _State) -> None:
        while not self._stop.is_set():
            done = step()
            state.steps += 1
            if state.error is not None:
                logger.warning("loop.recovered loop=%s failures=%d", loop.title, state.failures)
                state.error, state.failures = None, 0
            if not done:
                self._stop.wait(loop.pause_s)


def _note_failure(loop: Loop, state: _State, error: Exception) -> None:
    state.failures += 1
    reason = error.message if isinstance(error, WorkledgerError) else f"{type(error).__name__}: {error}"
    if reason == state.error:
        return
    state.error = reason
    # An error of ours says what to do; any other is a bug, and whoever mends it needs the traceback.
    trace = None if isinstance(error, WorkledgerError) else error
    logger.error("loop.failed loop=%s reason=%s (said once; it is tried again)", loop.title, reason, exc_info=trace)
