"""A caller's place in the recorder's queue, and how its answer gets back to it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from workledger.errors import WorkledgerError
from workledger.model.change import Change
from workledger.operational.apply import Outcome

__all__ = ["AsyncTicket", "BufferedTicket", "OnRefused", "Ticket", "settle"]

logger = logging.getLogger(__name__)

_LOOK_UP_S: Final = 1.0


class Ticket:
    """A blocking caller's place. Without a change, it asks for the lead itself."""

    __slots__ = ("_ready", "change", "outcome")

    #: Whether its caller can commit for the others.
    can_lead = True

    def __init__(self, change: Change | None) -> None:
        self.change = change
        self.outcome: Outcome | WorkledgerError | None = None
        self._ready = threading.Lock()
        self._ready.acquire()

    def wait(self) -> None:
        """Block until there is an answer, or it is this caller's turn to lead.

        A signal that another thread of the process takes, or that comes just before the wait, does not end a wait in
        the main thread; its handler (Ctrl-C) runs when that thread looks up, as it does every second.
        """
        while not self._ready.acquire(timeout=_LOOK_UP_S):
            pass

    def wake(self) -> None:
        """Let the caller look; waking it twice is harmless."""
        if self._ready.locked():
            self._ready.release()

    def settle(self, outcome: Outcome | WorkledgerError) -> None:
        """Answer; settling it twice is harmless."""
        self.outcome = outcome
        self.wake()

    def result(self) -> Outcome:
        """What the caller returns, or raises."""
        if isinstance(self.outcome, WorkledgerError):
            raise self.outcome
        if self.outcome is None:
            raise WorkledgerError("a change was given up without an answer; this is a bug in Workledger")
        return self.outcome


class AsyncTicket(Ticket):
    """A coroutine's place: it cannot lead, and is told through its event loop."""

    __slots__ = ("future", "loop")

    can_lead = False

    def __init__(self, change: Change, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(change)
        self.loop = loop
        self.future: asyncio.Future[Outcome] = loop.create_future()

    def settle(self, outcome: Outcome | WorkledgerError) -> None:
        """Keep the answer; `settle` tells all coroutines of a loop at once."""
        self.outcome = outcome

    def tell(self) -> None:
        """Resolve the future; runs in its loop."""
        if self.future.done():
            return
        if isinstance(self.outcome, WorkledgerError):
            self.future.set_exception(self.outcome)
        else:
            self.future.set_result(self.result())


#: Hears of changes that nobody waited for and that were refused, in their order.
OnRefused = Callable[[Sequence[tuple[Change, WorkledgerError]]], None]


class BufferedTicket(Ticket):
    """A change nobody waits for."""

    __slots__ = ("buffered", "on_refused")

    can_lead = False

    def __init__(self, change: Change, on_refused: OnRefused) -> None:
        super().__init__(change)
        self.buffered = change
        self.on_refused = on_refused

    def settle(self, outcome: Outcome | WorkledgerError) -> None:
        """Keep the answer; `settle` tells of all refusals at once."""
        self.outcome = outcome


def settle(tickets: Sequence[Ticket], outcomes: Sequence[Outcome | WorkledgerError]) -> None:
    """Give each caller its outcome; coroutines of one loop are woken by one call."""
    by_loop: dict[asyncio.AbstractEventLoop, list[AsyncTicket]] = {}
    refused: dict[OnRefused, list[tuple[Change, WorkledgerError]]] = {}
    for ticket, outcome in zip(tickets, outcomes, strict=True):
        is_first_answer = ticket.outcome is None
        ticket.settle(outcome)
        if isinstance(ticket, AsyncTicket):
            by_loop.setdefault(ticket.loop, []).append(ticket)
        elif isinstance(ticket, BufferedTicket) and is_first_answer and isinstance(outcome, WorkledgerError):
            refused.setdefault(ticket.on_refused, []).append((ticket.buffered, outcome))
    for loop, waiting in by_loop.items():
        _tell_loop(loop, waiting)
    for on_refused, told in refused.items():
        try:
            on_refused(told)
        except Exception:
            logger.exception("record.refusal_not_heard changes=%d", len(told))


def _tell_loop(loop: asyncio.AbstractEventLoop, waiting: list[AsyncTicket]) -> None:
    try:
        loop.call_soon_threadsafe(_tell_all, waiting)
    except RuntimeError:
        # The loop was closed while we committed: nobody is left to tell, and the record stands.
        logger.debug("record.loop_closed waiting=%d", len(waiting))


def _tell_all(tickets: list[AsyncTicket]) -> None:
    for ticket in tickets:
        ticket.tell()
