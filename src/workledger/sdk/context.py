"""Where the running code is: in which workflow, in which execution.

The current place follows coroutines by itself (`contextvars`). Threads start with an empty context, so
`follow_threads` makes new threads and pool submissions carry the place along; nothing else is carried.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workledger.sdk.execution import Execution
    from workledger.sdk.run import WorkflowRun

__all__ = ["Place", "current", "follow_threads", "placed"]


class Place:
    """A workflow run and, inside it, the execution that is running."""

    __slots__ = ("execution", "run")

    def __init__(self, run: WorkflowRun, execution: Execution | None = None) -> None:
        self.run = run
        self.execution = execution


_place: ContextVar[Place | None] = ContextVar("workledger_place", default=None)


def current() -> Place | None:
    """The place of the calling code; None outside of any workflow."""
    return _place.get()


@contextmanager
def placed(place: Place | None) -> Generator[None]:
    """Run a block at a place."""
    token = _place.set(place)
    try:
        yield
    finally:
        # A coroutine that is thrown away ends in whatever context the garbage collector runs in; ours is gone with it.
        with suppress(ValueError):
            _place.reset(token)


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
        with placed(place):
            return fn(*args, **kwargs)

    return carried
