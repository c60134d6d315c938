"""Where the running code is: in which workflow, in which execution.

The current place follows coroutines by itself (`contextvars`). Threads start with an empty context, so
`follow_threads` makes new threads and pool submissions carry the place along; nothing else is carried.

Blocks do not always end in the reverse order of their beginning: a program may overlap them, and a generator or a
coroutine that is thrown away ends its blocks when the garbage collector finds it, in whatever context that runs in.
So a place that is left is taken out of the chain that leads to the current one, wherever it stands there, together
with what was begun inside it; nothing is ever set back to what was current some time ago.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workledger.sdk.execution import Execution
    from workledger.sdk.run import WorkflowRun

__all__ = ["Place", "current", "follow_threads"]


class Place:
    """A workflow run and, inside it, the execution that is running."""

    __slots__ = ("execution", "outer", "run")

    def __init__(self, run: WorkflowRun, execution: Execution | None = None) -> None:
        self.run = run
        self.execution = execution
        #: Where the code is again when it has left this place.
        self.outer: Place | None = None

    def enter(self) -> None:
        """Be here from now on, in this context and in those that are copied from it."""
        self.outer = _place.get()
        _place.set(self)

    def leave(self) -> None:
        """Be here no longer, nor at any place inside; harmless in a context that is not here."""
        place = _place.get()
        if place is self:
            _place.set(self.outer)
            return
        while place is not None and place.is_within(self):  # begun inside and never ended
            place = place.outer
        _place.set(place)
        while place is not None:
            while place.outer is not None and place.outer.is_within(self):
                place.outer = place.outer.outer
            place = place.outer

    def is_within(self, other: Place) -> bool:
        """Whether this is `other`, or was begun inside it."""
        if self.run is not other.run or other.execution is None:
            return self.run is other.run
        execution = self.execution
        while execution is not None and execution is not other.execution:
            execution = execution.parent
        return execution is not None


_place: ContextVar[Place | None] = ContextVar("workledger_place", default=None)


def current() -> Place | None:
    """The place of the calling code; None outside of any workflow."""
    return _place.get()


_patched = False
_patching = threading.Lock()


def follow_threads() -> None:
    """Make threads and thread pools started from now on carry the place; calling it again does nothing."""
    global _patched  # noqa: PLW0603  once a process
    with _patching:
        if _patched:
            return
        _patched = True
    _follow_thread_start()
    _follow_pool_submit()


def _follow_thread_start() -> None:
    start = threading.Thread.start

    @wraps(start)
    def start_in_place(self: threading.Thread) -> None:
        place = _place.get()
        if place is not None:
            self.run = _carrying(place, self.run)
        start(self)

    threading.Thread.start = start_in_place


def _follow_pool_submit() -> None:
    submit = ThreadPoolExecutor.submit

    @wraps(submit)
    def submit_in_place(self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        place = _place.get()
        return submit(self, fn if place is None else _carrying(place, fn), *args, **kwargs)

    ThreadPoolExecutor.submit = submit_in_place


def _carrying(place: Place, fn: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(fn)
    def carried(*args: Any, **kwargs: Any) -> Any:
        token = _place.set(place)
        try:
            return fn(*args, **kwargs)
        finally:
            _place.reset(token)

    return carried
