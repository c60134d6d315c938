"""Following the log from other people's programs, over Redis Streams, as one of several consumers of a group.

Every event of the log is given to one consumer of the group, at least once: it counts as dealt with when the handler
has returned. What a consumer that died was given goes to another one. What the stream has lost is read from the log,
before what follows it. An event that no handler can deal with goes to a stream of dead letters. One consumer alone gets
events in the order of the log as long as it deals with them; several share them out.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self
from uuid import uuid4

from workledger.errors import Unavailable
from workledger.model.jsonvalue import decode
from workledger.synapse.bus import BusEvent
from workledger.synapse.group import Entry, Group, GroupGone, Piece

__all__ = ["Backing", "Delivery", "Handler", "Subscription"]

logger = logging.getLogger(__name__)

_BATCH: Final = 100
_PIECE: Final = 500
_KEEP_EVERY_S: Final = 2.0
_ACKNOWLEDGE_EVERY_S: Final = 0.5
_WAIT_S: Final = 0.5
_MAX_PAUSE_S: Final = 10.0
_REASON_CHARS: Final = 500


class Backing(Protocol):
    """What stands behind the stream: the log, and a place for the group's progress that outlives Redis.

    Every method raises `DatabaseUnavailable` when PostgreSQL cannot be reached, and can be called again.
    """

    def head(self) -> int:
        """Give the last position of the log."""
        ...

    def events(self, *, after: int, limit: int) -> list[BusEvent]:
        """Give the events after a position, in order; at least one, unless there is none."""
        ...

    def progress(self) -> int | None:
        """Give the position that was kept last; None when none ever was."""
        ...

    def keep(self, position: int) -> None:
        """Keep the group's progress; a position below the one that was kept changes nothing."""
        ...

    def close(self) -> None:
        """Let go of the connection; the next call opens another."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """An event that is given to a handler. `position` tells a repetition; `attempt` is above 1 when it may be one."""

    position: int
    event_type: str
    data: bytes
    attempt: int

    @property
    def event(self) -> dict[str, Any]:
        """The event: position, event_id, event_type, entity_type, entity_id, workflow_id, …, payload."""
        return decode(self.data)


Handler = Callable[[Delivery], object]


class Subscription:
    """One consumer of a group. Either `run` it with a handler, or iterate over it; from one thread.

    An iteration deals with an event when it asks for the next one; leaving the loop by an error leaves the event to
    be given again. Whatever is away is waited for; that is said once.
    """

    def __init__(
        self,
        url: str,
        *,
        backing: Backing,
        group: str,
        project: str = "workledger",
        consumer: str | None = None,
        event_types: Collection[str] | None = None,
        begin_after: int | None = None,
        claim_after_s: float = 30.0,
        max_attempts: int = 5,
    ) -> None:
        self.consumer = consumer or f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self._group = Group(url, project=project, name=group, consumer=self.consumer)
        self._backing = backing
        self._event_types = None if event_types is None else frozenset(event_types)
        self._begin_after = begin_after
        self._claim_after_s = claim_after_s
        self._max_attempts = max_attempts
        self._acknowledged: list[Entry] = []
        self._is_behind = False
        self._next_claim_s = self._next_keep_s = self._next_hold_s = self._next_flush_s = 0.0

    # -- for users --------------------------------------------------------------------------------------------

    def run(self, handler: Handler, *, stop: threading.Event | None = None, idle_s: float | None = None) -> int:
        """Give events to a handler until `stop` is set, or until none has come for `idle_s`; returns how many.

        An error of the handler is logged, and the event is given again after `claim_after_s`, to this consumer or to
        another, until it goes to the dead letters with the `max_attempts`-th error.
        """
        return sum(1 for _ in self._deliveries(stop or threading.Event(), idle_s, handler))

    def __iter__(self) -> Iterator[Delivery]:
        return self._deliveries(threading.Event(), None, None)

    def close(self) -> None:
        """Say what was dealt with, and leave the group."""
        try:
            self._flush()
            self._backing.keep(self._group.progress())
            self._group.tidy(leaving=True)
        except Unavailable as error:
            logger.info("subscription.closed_without_goodbye consumer=%s reason=%s", self.consumer, error)
        self._group.close()
        self._backing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the loop ---------------------------------------------------------------------------------------------

    def _deliveries(self, stop: threading.Event, idle_s: float | None, handler: Handler | None) -> Iterator[Delivery]:
        is_gone, ill, pause_s, quiet_since_s = False, False, 0.0, float("inf")
        while not stop.is_set():
            quiet_since_s = min(quiet_since_s, time.monotonic())
            try:
                if is_gone:
                    self._make_group()
                    is_gone = False
                for delivery in self._round(stop, handler):
                    yield delivery
                    quiet_since_s = float("inf")
                if self._is_behind:  # reading the log takes time, and what comes after it is not looked at yet
                    quiet_since_s = float("inf")
            except GroupGone:
                is_gone, quiet_since_s = True, float("inf")
            except Unavailable as error:
                if not ill:
                    logger.warning("subscription.waiting consumer=%s reason=%s", self.consumer, error)
                ill, pause_s = True, min(max(pause_s * 2, 0.1), _MAX_PAUSE_S)
                self._backing.close()  # a lost server may have left it in the middle of something
                stop.wait(pause_s)
                continue
            if ill:
                logger.warning("subscription.recovered consumer=%s", self.consumer)
            ill, pause_s = False, 0.0
            if idle_s is not None and time.monotonic() - quiet_since_s >= idle_s:
                return

    def _make_group(self) -> None:
        head, progress = self._backing.head(), self._backing.progress()
        if progress is None:
            progress = head if self._begin_after is None else min(self._begin_after, head)
            self._backing.keep(progress)
        self._acknowledged.clear()
        if self._group.make(progress=min(progress, head), head=head):
            logger.info("subscription.group_made consumer=%s progress=%d head=%d", self.consumer, progress, head)

    def _round(self, stop: threading.Event, handler: Handler | None) -> Iterator[Delivery]:
        """Deal with what there is; when there is nothing, wait for something."""
        self._keep_progress()
        pieces, entries, top = self._look()
        self._is_behind = bool(pieces)
        self._next_hold_s = time.monotonic() + self._claim_after_s / 3
        if not pieces and not entries:
            self._flush()
            self._group.wait(after=top, timeout_s=min(_WAIT_S, self._claim_after_s / 4))
            return
        entries = deque(entries)
        try:
            while pieces and not stop.is_set():
                for piece in pieces:
                    yield from self._deal_with_piece(piece, handler)
                    self._hold(entries)
                pieces = self._group.read(1, only_pieces=True)[0]
            while entries and not stop.is_set():
                yield from self._deal_with_entry(entries.popleft(), handler)
                self._hold(entries)
        finally:
            if entries:
                self._group.release(list(entries), after_s=self._claim_after_s)
            self._flush()

    def _keep_progress(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_keep_s:
            self._flush()
            self._backing.keep(self._group.progress())
            self._group.tidy()
            self._next_keep_s = now_s + _KEEP_EVERY_S

    def _look(self) -> tuple[list[Piece], list[Entry], int]:
        now_s = time.monotonic()
        if now_s >= self._next_claim_s:
            pieces, entries = self._group.claim(_BATCH, idle_s=self._claim_after_s)
            if pieces or entries:
                return pieces, entries, 0
            self._next_claim_s = now_s + self._claim_after_s / 4
        return self._group.read(_BATCH)

    def _deal_with_entry(self, entry: Entry, handler: Handler | None) -> Iterator[Delivery]:
        if self._is_wanted(entry.event):
            outcome = self._attempt(entry.event, entry.attempt, handler)
            if isinstance(outcome, Delivery):
                yield outcome
            elif entry.attempt < self._max_attempts:
                return  # it is claimed when it has been left alone for long enough
            else:
                self._bury(entry.event, reason=outcome)
        self._acknowledged.append(entry)
        now_s = time.monotonic()
        if now_s >= self._next_flush_s:
            self._flush()
            self._next_flush_s = now_s + _ACKNOWLEDGE_EVERY_S

    def _deal_with_piece(self, piece: Piece, handler: Handler | None) -> Iterator[Delivery]:
        """Deal with a range of the log; what cannot be dealt with is put aside as a piece of its own."""
        if piece.tries and piece.attempt == 1:
            return  # it failed a moment ago, and is claimed when it has been left alone for long enough
        if (cut := _cut(piece)) is not None:
            self._group.replace(piece, [(piece.first, cut, 0), (cut + 1, piece.last, 0)])
            return
        aside: list[tuple[int, int, int]] = []
        attempt = piece.tries + piece.attempt - (1 if piece.tries else 0)
        for event in self._lost(piece):
            if not self._is_wanted(event):
                continue
            outcome = self._attempt(event, attempt, handler)
            if isinstance(outcome, Delivery):
                yield outcome
            elif attempt < self._max_attempts:
                aside.append((event.position, event.position, attempt))
            else:
                self._bury(event, reason=outcome)
            if not self._hold_piece(piece):
                return
        self._group.replace(piece, aside)

    def _lost(self, piece: Piece) -> Iterator[BusEvent]:
        after = piece.first - 1
        while after < piece.last:
            events = self._backing.events(after=after, limit=piece.last - after)
            if not events:
                logger.error("subscription.not_in_the_log first=%d last=%d", after + 1, piece.last)
                return
            yield from (event for event in events if self._group.has(piece, event))
            after = events[-1].position

    def _attempt(self, event: BusEvent, attempt: int, handler: Handler | None) -> Delivery | str:
        """Give the event to the handler. Gives the delivery, or the reason why it could not be dealt with."""
        if attempt > self._max_attempts:
            return "given too often: those who were to deal with it never came back"
        delivery = Delivery(position=event.position, event_type=event.event_type, data=event.data, attempt=attempt)
        if handler is None:
            return delivery
        try:
            handler(delivery)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:_REASON_CHARS]
            template = "subscription.handler_failed position=%d attempt=%d reason=%s"
            logger.warning(template, event.position, attempt, reason, exc_info=error)
            return reason
        return delivery

    def _is_wanted(self, event: BusEvent) -> bool:
        return self._event_types is None or event.event_type in self._event_types

    def _bury(self, event: BusEvent, *, reason: str) -> None:
        logger.error("subscription.dead_letter position=%d reason=%s", event.position, reason)
        self._group.bury(event, attempts=self._max_attempts, reason=reason)

    # -- what is dealt with, and what is still in hand --------------------------------------------------------

    def _flush(self) -> None:
        self._group.acknowledge(self._acknowledged)
        self._acknowledged.clear()

    def _hold(self, entries: deque[Entry]) -> None:
        """Keep what is in hand from being claimed while it waits for its turn; drop what was claimed all the same."""
        if not entries or not self._is_time_to_hold():
            return
        kept = self._group.hold_entries(entries)
        entries.clear()
        entries.extend(kept)

    def _hold_piece(self, piece: Piece) -> bool:
        return not self._is_time_to_hold() or self._group.hold_piece(piece)

    def _is_time_to_hold(self) -> bool:
        now_s = time.monotonic()
        if now_s < self._next_hold_s:
            return False
        self._next_hold_s = now_s + self._claim_after_s / 3
        return True


def _cut(piece: Piece) -> int | None:
    """Say after which position a piece is to be cut in two: it is long, or whoever had it died of something in it."""
    if piece.last - piece.first >= _PIECE:
        return piece.first + _PIECE - 1
    if piece.attempt > 1 and piece.last > piece.first:
        return (piece.first + piece.last) // 2
    return None
