"""The arrow from the recording program into state and log: group commit.

The first caller to arrive commits for all that wait (flat combining): a lone caller pays one round trip and one
fsync, and sixty-four callers share them. Nobody hands work to another thread unless somebody is already
committing; coroutines, which may not block, are served by one helper thread.

Who leads is written down in one place, `_leader`, under the mutex. That is what makes Ctrl-C harmless: wherever it
strikes, the caller that leaves can see whether it held the lead, and hands it on.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Final, TypeVar

import psycopg
from psycopg.pq import ConnStatus, PipelineStatus, TransactionStatus

from workledger.errors import DatabaseUnavailable, WorkledgerError
from workledger.flows.tickets import AsyncTicket, BufferedTicket, OnRefused, Ticket, settle
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
from workledger.postgres.connection import Connection, in_schema, translate_errors, translated
from workledger.postgres.deadline import Deadline
from workledger.postgres.forks import forget_after_fork

__all__ = ["Recorder", "apply_atomically", "apply_joining"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
WhenAway = Callable[[DatabaseUnavailable, list[Change]], None]

MAX_BATCH: Final = 256
MAX_QUEUE: Final = 10_000
_RETRIES: Final = 5
_LOCK_SHARE: Final = 0.8
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

    def __init__(self, connect: Callable[[], Connection], *, delay_s: float = 0.05, timeout_s: float = 10.0) -> None:
        self._connect = connect
        self._delay_s = delay_s
        self._deadline = Deadline(timeout_s)
        self._connection: Connection | None = None
        #: While this says True, callers are answered with `DatabaseUnavailable`: changes that came before theirs are
        #: waiting elsewhere, and none may overtake them.
        self.is_held: Callable[[], bool] = bool
        #: Called by whoever leads when the database is away, with the buffered changes that it could not commit.
        self.when_away: WhenAway | None = None
        self._reset_queue()
        forget_after_fork(self)

    def _reset_queue(self) -> None:
        self._mutex = threading.Lock()
        self._room = threading.Condition(self._mutex)
        self._queue: deque[Ticket] = deque()
        self._leader: Ticket | None = None
        self._helper: threading.Thread | None = None
        self._helper_turn = Ticket(None)
        self._pause_s = 0.0
        self._hurry = threading.Event()

    def forget_parent(self) -> None:
        """In a forked child: leave the parent's connection alone, and begin with an empty queue."""
        if self._connection is not None:
            _inherited.append(self._connection)
        self._connection = None
        self._reset_queue()

    def record(self, change: Change) -> Outcome:
        """Commit one change; blocks until it is durable. Raises what its guard or the database says."""
        ticket = Ticket(change)
        try:
            if not self._join(ticket):
                ticket.wait()
            if self._leader is ticket:
                self._lead(ticket)
        except BaseException:
            self._leave(ticket)
            raise
        return ticket.result()

    async def record_async(self, change: Change) -> Outcome:
        """Commit one change without blocking the event loop."""
        ticket = AsyncTicket(change, asyncio.get_running_loop())
        try:
            if self._join(ticket):
                self._give_to_helper()
        except BaseException:
            self._leave(ticket)
            raise
        return await ticket.future

    def record_all(self, changes: Sequence[Change]) -> list[Outcome]:
        """Commit many changes in one transaction of their own: all of them or, on any refusal, none."""
        with self.leading():
            return self._attempt(lambda connection: _apply_whole(connection, changes), changes, is_bounded=False)

    def record_each(self, changes: Sequence[Change]) -> list[Outcome | WorkledgerError]:
        """Commit many changes in one transaction; a refused one is an error in its place."""
        with self.leading():
            return self._outcomes(list(changes))

    def record_later(self, change: Change, *, on_refused: OnRefused) -> bool:
        """Queue a change and return; it is committed within `delay_s`. Blocks only while the queue is full.

        False when it was not queued, because what is recorded is held.
        """
        ticket = BufferedTicket(change, on_refused)
        try:
            with self._room:
                while len(self._queue) >= MAX_QUEUE:
                    self._room.wait()
                if self.is_held():
                    return False
                self._queue.append(ticket)
                leads = self._leader is None
                if leads:
                    self._leader = ticket
                if len(self._queue) >= MAX_BATCH:
                    self._hurry.set()
            if leads:
                self._give_to_helper(self._delay_s)
        except BaseException:
            self._leave(ticket)
            raise
        return True

    def take_buffered(self) -> list[Change]:
        """Take the buffered changes out of the queue; only for whoever leads, once `is_held` says True."""
        with self._mutex:
            taken = [ticket for ticket in self._queue if isinstance(ticket, BufferedTicket)]
            self._queue = deque(ticket for ticket in self._queue if not isinstance(ticket, BufferedTicket))
            self._room.notify_all()
        return [ticket.buffered for ticket in taken]

    def flush(self) -> None:
        """Return when everything that was queued before is committed."""
        with self.leading():
            pass

    def check(self) -> None:
        """Raise `DatabaseUnavailable` unless the database answers."""
        with self.leading():
            self._attempt(lambda connection: connection.execute("SELECT 1"), [])

    def another_connection(self) -> Connection:
        """Open a connection like the one it records over, for the caller alone."""
        return self._connect()

    def close(self) -> None:
        """Close the connection; a later `record` opens a new one."""
        with self.leading():
            self._discard_connection()

    # -- taking turns ---------------------------------------------------------------------------------------

    def _join(self, ticket: Ticket) -> bool:
        """Queue a ticket; True when its caller has the lead."""
        with self._mutex:
            self._queue.append(ticket)
            if self._leader is None:
                self._leader = ticket
                return True
            self._hurry.set()
            return False

    def _lead(self, own: Ticket) -> None:
        """Commit one batch, then hand the lead on to whoever waits next."""
        batch: list[Ticket] = []
        try:
            self._take(batch)
            if batch:
                self._commit(batch)
        except BaseException:
            self._put_back(batch, own)
            raise
        finally:
            self._hand_on()

    def _take(self, batch: list[Ticket]) -> None:
        """Move the head of the queue into `batch`, up to somebody who wants the lead for itself."""
        with self._mutex:
            while self._queue and self._queue[0].change is not None and len(batch) < MAX_BATCH:
                batch.append(self._queue[0])
                self._queue.popleft()
            self._room.notify_all()
            self._hurry.clear()

    def _put_back(self, batch: Sequence[Ticket], own: Ticket) -> None:
        """After Ctrl-C in the leading thread, which is no answer for the others.

        The next leader commits their changes again, which is harmless where it was done already.
        """
        answered = [(ticket, ticket.outcome) for ticket in batch if ticket.outcome is not None]
        settle([ticket for ticket, _ in answered], [outcome for _, outcome in answered])
        with self._mutex:
            open_ = [t for t in batch if t is not own and t.outcome is None and t not in self._queue]
            self._queue.extendleft(reversed(open_))

    def _hand_on(self) -> None:
        with self._mutex:
            successor = self._queue[0] if self._queue else None
            to_helper = successor is not None and not successor.can_lead
            self._leader = self._helper_turn if to_helper else successor
            if self._leader is not None:
                self._leader.wake()
        if to_helper:
            self._ensure_helper()

    def _leave(self, ticket: Ticket) -> None:
        """Take a caller out that does not wait any longer; if it has the lead, hand it on."""
        with self._mutex:
            if ticket in self._queue:
                self._queue.remove(ticket)
            leads = self._leader is ticket
            if not leads and self._leader is not None:
                self._leader.wake()  # it may have been chosen and not told
        if leads:
            self._hand_on()

    def _give_to_helper(self, pause_s: float = 0.0) -> None:
        with self._mutex:
            self._pause_s = pause_s
            self._leader = self._helper_turn
            self._helper_turn.wake()
        self._ensure_helper()

    def _ensure_helper(self) -> None:
        if self._helper is not None and self._helper.is_alive():
            return
        self._helper = threading.Thread(target=self._help, name="workledger-recorder", daemon=True)
        try:
            self._helper.start()
        except RuntimeError:  # the interpreter is ending and starts no more threads
            self._helper = None
            while self._leader is self._helper_turn:
                self._lead(self._helper_turn)

    def _help(self) -> None:
        while True:
            self._helper_turn.wait()
            if self._leader is not self._helper_turn:
                continue  # woken twice
            if self._pause_s:
                self._hurry.wait(self._pause_s)
                self._pause_s = 0.0
            self._lead(self._helper_turn)

    @contextmanager
    def leading(self) -> Generator[None]:
        """Hold the lead for something that is not a batch: nothing else is committed meanwhile."""
        ticket = Ticket(None)
        try:
            if not self._join(ticket):
                ticket.wait()
            with self._mutex:
                self._queue.remove(ticket)
            yield
        finally:
            self._leave(ticket)

    # -- committing -----------------------------------------------------------------------------------------

    def _commit(self, batch: Sequence[Ticket]) -> None:
        if self.is_held():
            self._set_aside(batch, DatabaseUnavailable("earlier changes still wait for PostgreSQL"))
            return
        try:
            outcomes = self._outcomes([ticket.change for ticket in batch if ticket.change is not None])
        except Exception as error:  # noqa: BLE001  every waiting caller is owed an answer
            outcomes = [_as_ours(error)] * len(batch)
            if isinstance(outcomes[0], DatabaseUnavailable):
                self._set_aside(batch, outcomes[0])
                return
        settle(batch, outcomes)

    def _set_aside(self, batch: Sequence[Ticket], error: DatabaseUnavailable) -> None:
        """The database is away: hand over what nobody waits for, in its order, and then tell those who wait."""
        if self.when_away is not None:
            try:
                self.when_away(error, [ticket.buffered for ticket in batch if isinstance(ticket, BufferedTicket)])
            except Exception:
                logger.exception("record.not_set_aside")
            else:
                batch = [ticket for ticket in batch if not isinstance(ticket, BufferedTicket)]
        settle(batch, [error] * len(batch))

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

    def _attempt(self, work: Callable[[Connection], T], changes: Sequence[Change], *, is_bounded: bool = True) -> T:
        """Run `work` until it is through, over new connections and after deadlocks where that can help."""
        for attempt in range(_RETRIES + 1):
            connection = self._live_connection()
            try:
                with self._deadline.over(connection) if is_bounded else nullcontext():
                    return work(connection)
            except psycopg.Error as error:
                if is_bounded and self._deadline.has_passed:
                    self._discard_connection()
                    raise self._too_slow() from error
                if not self._can_retry(connection, error, changes):
                    raise translated(error) from error
                if attempt == _RETRIES:
                    raise self._given_up(error) from error
                logger.info("record.retry attempt=%d error=%s", attempt + 1, type(error).__name__)
            except Exception:
                raise
            except BaseException:
                self._discard_connection()  # interrupted anywhere: nobody knows what it is in the middle of
                raise
        raise AssertionError("unreachable")

    def _can_retry(self, connection: Connection, error: psycopg.Error, changes: Sequence[Change]) -> bool:
        if is_missing_partition(error):
            with translate_errors():
                make_partitions(connection, changes)
            return True
        if not _is_ready(connection):
            # The answer is lost, not the question: the next round recognises what was committed by its ids.
            self._discard_connection()
            return True
        return isinstance(error, _RETRIABLE)

    def _too_slow(self) -> DatabaseUnavailable:
        return DatabaseUnavailable(
            f"PostgreSQL gave no answer within {self._deadline.limit_s:g} s (WORKLEDGER_RECORD_TIMEOUT_S)"
        )

    def _given_up(self, error: psycopg.Error) -> WorkledgerError:
        if self._connection is None:
            return DatabaseUnavailable(f"PostgreSQL broke {_RETRIES + 1} connections in a row: {error}")
        return translated(error)

    def _live_connection(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = None
            self._connection = self._connect()
            self._bound_locks(self._connection)
        return self._connection

    def _bound_locks(self, connection: Connection) -> None:
        """Have the server say who waits too long for a lock, before the connection has to be cut."""
        if connection.prepare_threshold is not None:  # behind a pooler a session has no settings of its own
            limit_ms = max(int(self._deadline.limit_s * 1000 * _LOCK_SHARE), 1)
            with translate_errors():
                connection.execute("SELECT set_config('lock_timeout', %s, false)", (f"{limit_ms}ms",))

    def _discard_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _is_ready(connection: Connection) -> bool:
    """Say whether the next statement can be sent: a lost server may leave the driver in the middle of something."""
    state = connection.pgconn
    return (
        state.status == ConnStatus.OK
        and state.transaction_status == TransactionStatus.IDLE
        and state.pipeline_status == PipelineStatus.OFF
    )


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


def _as_ours(error: Exception) -> WorkledgerError:
    if isinstance(error, WorkledgerError):
        return error
    if isinstance(error, psycopg.Error):
        return translated(error)
    return WorkledgerError(f"recording failed: {type(error).__name__}: {error}")
