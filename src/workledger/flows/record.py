"""The arrow from the recording program into state and log: group commit.

The first caller to arrive commits for all that wait (flat combining): a lone caller pays one round trip and one
fsync, and sixty-four callers share them. Nobody hands work to another thread unless somebody is already
committing; coroutines, which may not block, are served by one helper thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

import psycopg

from workledger.errors import DatabaseUnavailable, WorkledgerError
from workledger.model.change import Change
from workledger.operational.apply import (
    Outcome,
    apply_alone,
    apply_in_transaction,
    apply_one,
    is_missing_partition,
    make_partitions,
)
from workledger.operational.bulk import apply_finished, are_finished
from workledger.postgres.connection import Connection, in_schema, translated

__all__ = ["Recorder", "apply_atomically", "apply_joining"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_BATCH: Final = 256
MAX_QUEUE: Final = 10_000
_RETRIES: Final = 5
_RETRIABLE: Final = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.UniqueViolation,
)

# After a fork the child must not close the parent's connection: closing says goodbye to the server on a socket
# that both share. It is kept here, untouched, instead.
_inherited: list[Connection] = []


class Recorder:
    """Applies changes for all threads and coroutines of this process over one connection.

    `record` and `record_async` return when the change is committed. A change that its guard refuses fails for
    its own caller only. A connection lost during a commit is answered by applying the same changes again on a
    new one: they carry their identity, so what was committed is recognised.
    """

    def __init__(self, connect: Callable[[], Connection], *, delay_s: float = 0.05) -> None:
        self._connect = connect
        self._delay_s = delay_s
        self._connection: Connection | None = None
        self._pid = os.getpid()
        self._reset_queue()

    def _reset_queue(self) -> None:
        self._mutex = threading.Lock()
        self._room = threading.Condition(self._mutex)
        self._queue: deque[_Ticket] = deque()
        self._leading = False
        self._turn = threading.Semaphore(0)
        self._helper: threading.Thread | None = None
        self._wait_s = 0.0
        self._hurry = threading.Event()

    def record(self, change: Change) -> Outcome:
        """Commit one change; blocks until it is durable. Raises what its guard or the database says."""
        self._notice_fork()
        ticket = _Ticket(change)
        if self._join(ticket) or ticket.wait():
            self._lead()
        return ticket.result()

    async def record_async(self, change: Change) -> Outcome:
        """Commit one change without blocking the event loop."""
        self._notice_fork()
        loop = asyncio.get_running_loop()
        ticket = _AsyncTicket(change, loop)
        if self._join(ticket):
            self._wake_helper()
        return await ticket.future

    def record_all(self, changes: Sequence[Change]) -> list[Outcome]:
        """Commit many changes in one transaction of their own: all of them or, on any refusal, none."""
        self._notice_fork()
        with self._exclusive():
            return self._attempt(lambda connection: _apply_whole(connection, changes), changes)

    def record_each(self, changes: Sequence[Change]) -> list[Outcome | WorkledgerError]:
        """Commit many changes in one transaction; a refused one is an error in its place."""
        self._notice_fork()
        with self._exclusive():
            return self._outcomes(list(changes))

    def record_later(self, change: Change, *, on_refused: Callable[[Change, WorkledgerError], None]) -> None:
        """Queue a change and return; it is committed within `delay_s`. Blocks only while the queue is full."""
        self._notice_fork()
        ticket = _BufferedTicket(change, on_refused)
        with self._room:
            while len(self._queue) >= MAX_QUEUE:
                self._room.wait()
            self._queue.append(ticket)
            lead, self._leading = not self._leading, True
            if len(self._queue) >= MAX_BATCH:
                self._hurry.set()
        if lead:
            self._wake_helper(self._delay_s)

    def flush(self) -> None:
        """Return when everything that was queued before is committed."""
        self._notice_fork()
        with self._exclusive():
            pass

    def close(self) -> None:
        """Close the connection; a later `record` opens a new one."""
        with self._exclusive():
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    # -- taking turns ---------------------------------------------------------------------------------------

    def _join(self, ticket: _Ticket) -> bool:
        """Queue a ticket; True when its caller has to lead."""
        with self._mutex:
            self._queue.append(ticket)
            if self._leading:
                self._hurry.set()
                return False
            self._leading = True
            return True

    def _lead(self) -> None:
        """Commit one batch, then hand the lead on to whoever waits next."""
        with self._mutex:
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
            self._room.notify_all()
            self._hurry.clear()
        try:
            if batch:
                self._commit(batch)
        finally:
            self._hand_on()

    def _hand_on(self) -> None:
        with self._mutex:
            if not self._queue:
                self._leading = False
                return
            successor = self._queue[0]
        if not successor.promote():
            self._wake_helper()

    def _wake_helper(self, delay_s: float = 0.0) -> None:
        self._wait_s = delay_s
        if self._helper is None or not self._helper.is_alive():
            self._helper = threading.Thread(target=self._help, name="workledger-recorder", daemon=True)
            self._helper.start()
        self._turn.release()

    def _help(self) -> None:
        while True:
            self._turn.acquire()
            if self._wait_s:
                self._hurry.wait(self._wait_s)
            self._lead()

    @contextmanager
    def _exclusive(self) -> Generator[None]:
        """Hold the lead for something that is not a batch."""
        ticket = _Ticket(None)
        if not self._join(ticket):
            ticket.wait()
        with self._mutex:
            self._queue.remove(ticket)
        try:
            yield
        finally:
            self._hand_on()

    # -- committing -----------------------------------------------------------------------------------------

    def _commit(self, batch: list[_Ticket]) -> None:
        tickets = [ticket for ticket in batch if ticket.change is not None]
        changes = [ticket.change for ticket in tickets if ticket.change is not None]
        self._requeue_exclusive(batch)
        try:
            outcomes = self._outcomes(changes)
        except Exception as error:  # noqa: BLE001  every waiting caller is owed an answer
            outcomes = [_as_ours(error)] * len(changes)
        except BaseException:
            # Ctrl-C in the thread that leads is no answer for the others: the next leader commits their changes
            # again, which is harmless where it was done already.
            with self._mutex:
                self._queue.extendleft(reversed(tickets[1:]))
            raise
        _settle(tickets, outcomes)

    def _requeue_exclusive(self, batch: list[_Ticket]) -> None:
        waiting = [ticket for ticket in batch if ticket.change is None]
        if waiting:
            with self._mutex:
                self._queue.extendleft(reversed(waiting))

    def _outcomes(self, changes: list[Change]) -> list[Outcome | WorkledgerError]:
        if not changes:
            return []
        if len(changes) == 1:
            return [self._attempt_one(changes[0])]
        try:
            return self._attempt(lambda connection: apply_in_transaction(connection, changes), changes)
        except DatabaseUnavailable:
            raise
        except WorkledgerError:
            # One of them cannot be stored (and took the transaction with it): each goes alone, and fails alone.
            return [self._attempt_one(change) for change in changes]

    def _attempt_one(self, change: Change) -> Outcome | WorkledgerError:
        try:
            return self._attempt(lambda connection: apply_alone(connection, change), [change])
        except DatabaseUnavailable:
            raise  # no verdict on the change: it can be tried again
        except WorkledgerError as error:
            return error

    def _attempt(self, work: Callable[[Connection], T], changes: Sequence[Change]) -> T:
        """Run `work` until it is through, over new connections and after deadlocks where that can help."""
        for attempt in range(_RETRIES + 1):
            connection = self._live_connection()
            try:
                return work(connection)
            except psycopg.Error as error:
                if not self._can_retry(connection, error, changes) or attempt == _RETRIES:
                    raise translated(error) from error
                logger.info("record.retry attempt=%d error=%s", attempt + 1, type(error).__name__)
        raise AssertionError("unreachable")

    def _can_retry(self, connection: Connection, error: psycopg.Error, changes: Sequence[Change]) -> bool:
        if is_missing_partition(error):
            make_partitions(connection, changes)
            return True
        if isinstance(error, _RETRIABLE):
            return True
        if connection.closed or connection.broken:
            # The answer is lost, not the question: the next round recognises what was committed by its ids.
            self._connection = None
            return True
        return False

    def _live_connection(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():
            if self._connection is not None:
                _inherited.append(self._connection)
            self._connection = None
            self._pid = os.getpid()
            self._reset_queue()


def _apply_whole(connection: Connection, changes: Sequence[Change]) -> list[Outcome]:
    """Record whole finished workflows in bulk where they are new; anything else change by change."""
    if are_finished(changes):
        try:
            with connection.transaction():
                apply_finished(connection, changes)
                return [Outcome(applied=True)] * len(changes)
        except psycopg.errors.UniqueViolation:
            logger.debug("record.bulk_taken changes=%d", len(changes))
    return apply_atomically(connection, changes)


def apply_atomically(connection: Connection, changes: Sequence[Change]) -> list[Outcome]:
    """Apply changes in one transaction: all of them or, when any is refused, none and its error."""
    with connection.transaction():
        outcomes: list[Outcome] = []
        for outcome in apply_in_transaction(connection, changes):
            if isinstance(outcome, WorkledgerError):
                raise outcome
            outcomes.append(outcome)
        return outcomes


def apply_joining(connection: Connection, change: Change, *, schema: str) -> Outcome:
    """Apply a change inside the caller's transaction: it commits, or rolls back, with the caller's own rows.

    A refused change leaves the caller's transaction usable.
    """
    try:
        try:
            with connection.transaction(), in_schema(connection, schema):
                return apply_one(connection, change)
        except psycopg.Error as error:
            if not is_missing_partition(error):
                raise
        with connection.transaction(), in_schema(connection, schema):
            make_partitions(connection, [change])
            return apply_one(connection, change)
    except psycopg.Error as error:
        raise translated(error) from error


class _Ticket:
    """One caller's place in the queue. Without a change, it asks for the lead itself."""

    __slots__ = ("_ready", "change", "outcome", "promoted")

    def __init__(self, change: Change | None) -> None:
        self.change = change
        self.outcome: Outcome | WorkledgerError | None = None
        self.promoted = False
        self._ready = threading.Lock()
        self._ready.acquire()

    def wait(self) -> bool:
        """Block until served or promoted; True when promoted to lead."""
        self._ready.acquire()
        return self.promoted

    def promote(self) -> bool:
        self.promoted = True
        self._ready.release()
        return True

    def settle(self, outcome: Outcome | WorkledgerError) -> None:
        self.outcome = outcome
        if not self.promoted:
            self._ready.release()

    def result(self) -> Outcome:
        if isinstance(self.outcome, WorkledgerError):
            raise self.outcome
        if self.outcome is None:
            raise WorkledgerError("a change was given up without an answer; this is a bug in Workledger")
        return self.outcome


class _AsyncTicket(_Ticket):
    """A coroutine's place in the queue: it cannot lead, and is told through its event loop."""

    __slots__ = ("future", "loop")

    def __init__(self, change: Change, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(change)
        self.loop = loop
        self.future: asyncio.Future[Outcome] = loop.create_future()

    def promote(self) -> bool:
        return False

    def settle(self, outcome: Outcome | WorkledgerError) -> None:
        self.outcome = outcome

    def tell(self) -> None:
        if self.future.done():
            return
        if isinstance(self.outcome, WorkledgerError):
            self.future.set_exception(self.outcome)
        else:
            self.future.set_result(self.result())


class _BufferedTicket(_Ticket):
    """A change nobody waits for."""

    __slots__ = ("_change", "_on_refused")

    def __init__(self, change: Change, on_refused: Callable[[Change, WorkledgerError], None]) -> None:
        super().__init__(change)
        self._change = change
        self._on_refused = on_refused

    def promote(self) -> bool:
        return False

    def settle(self, outcome: Outcome | WorkledgerError) -> None:
        if isinstance(outcome, WorkledgerError):
            self._on_refused(self._change, outcome)


def _settle(tickets: Sequence[_Ticket], outcomes: Sequence[Outcome | WorkledgerError]) -> None:
    """Give each caller its outcome; coroutines of one loop are woken by one call."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_AsyncTicket]] = {}
    for ticket, outcome in zip(tickets, outcomes, strict=True):
        ticket.settle(outcome)
        if isinstance(ticket, _AsyncTicket):
            by_loop.setdefault(ticket.loop, []).append(ticket)
    for loop, waiting in by_loop.items():
        try:
            loop.call_soon_threadsafe(_tell_all, waiting)
        except RuntimeError:
            # The loop was closed while we committed: nobody is left to tell, and the record stands.
            logger.debug("record.loop_closed waiting=%d", len(waiting))


def _tell_all(tickets: list[_AsyncTicket]) -> None:
    for ticket in tickets:
        ticket.tell()


def _as_ours(error: BaseException) -> WorkledgerError:
    if isinstance(error, WorkledgerError):
        return error
    return WorkledgerError(f"recording failed: {type(error).__name__}: {error}")
