"""The arrow from the bus to a training store: each position once, whatever happens to the bus or to the writer.

The bus is only the quick way. What it does not have next (flushed, trimmed, away, or a publisher that sleeps) is read
from the log, and the end of what the bus gives is compared with the log, so that a stream of another database
cannot get in. How far a store is, its own manifest says.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import msgspec

from workledger.errors import ConfigurationError, StoreCorrupted, Unavailable
from workledger.flows.landing_turn import landing_turn
from workledger.flows.log_to_synapse import TRAINING_CONSUMER, bring_up_to_date
from workledger.flows.mount import mounted_if_behind
from workledger.log import consumers
from workledger.postgres.connection import Connection
from workledger.synapse.bus import Bus, BusEvent
from workledger.training.deriver import Deriver
from workledger.training.log_lines import Line, LogLines
from workledger.training.store import StoreWriter, TrainingStore

__all__ = ["Landing", "consumer_name", "land_once"]

logger = logging.getLogger(__name__)

PAGE: Final = 2000
_FULL: Final = 200
_IDLE_S: Final = 1.0
_STANDBY_S: Final = 1.0
_ALIVE_EVERY_S: Final = 60.0
_MAX_BACKOFF_S: Final = 10.0
_NAME_CHARS: Final = 250


def consumer_name(store: TrainingStore) -> str:
    """Give the name under which a store's position is shown among the readers of the log."""
    name = f"{TRAINING_CONSUMER}{store.name}"
    if len(name) <= _NAME_CHARS:
        return name
    return f"{name[: _NAME_CHARS // 2]}…{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def land_once(
    connection: Connection,
    *,
    bus: Bus,
    store: TrainingStore,
    schema: str,
    shard_rows: int = 100_000,
    upto: int | None = None,
    timeout_s: float = 3600.0,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Land what the log has now (or up to `upto`) and give the position the store has come to.

    When another process writes the store, wait until it has come that far, and take over if it goes away.
    """
    head = bring_up_to_date(connection, schema=schema)
    target = head if upto is None else min(upto, head)
    deadline = time.monotonic() + timeout_s
    told = on_progress or _nobody
    while True:
        try:
            with _as_writer(connection, store) as writer, _ahead_of(bus) as events:
                if writer is not None:
                    lander = _Lander(connection, events=events, writer=writer, store=store, shard_rows=shard_rows)
                    lander.on_taken = lambda position: told(position, target)
                    with mounted_if_behind(connection, writer.position):
                        return lander.land(upto=target)
        except Unavailable as error:
            if not error.details.get("outrun"):
                raise
        position = store.position()
        told(position, target)
        if position >= target:
            return position
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the training store {store.name} is being written by another process, which has come to position "
                f"{position} of {target} in {timeout_s:g} s"
            )
        time.sleep(0.1)


class Landing:
    """Lands until it is told to stop. Several may run for one store: one writes, the others stand by."""

    def __init__(
        self,
        *,
        connect: Callable[[], Connection],
        bus: Bus,
        store: TrainingStore,
        schema: str,
        shard_rows: int = 100_000,
        flush_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._bus = bus
        self._store = store
        self._schema = schema
        self._shard_rows = shard_rows
        self._flush_s = flush_s
        self._clock = clock
        self._reached = 0

    def run(self, stop: threading.Event) -> None:
        """Loop until `stop` is set. What is away is tried again, ever more rarely, and said once.

        Raises `StoreCorrupted` and the like: errors that waiting does not mend.
        """
        pause_s, failures = 0.0, 0
        while not stop.wait(pause_s):
            reached = self._reached
            try:
                self._hold(stop)
                pause_s, failures = _STANDBY_S, 0
            except Unavailable as error:
                if error.details.get("outrun"):  # nothing is away: somebody else was first, and that is done
                    pause_s = _STANDBY_S
                    continue
                if not failures:
                    logger.warning("landing.waiting store=%s reason=%s", self._store.name, error)
                # A store that takes some of what it is given is in trouble, not away.
                failures = 1 if self._reached > reached else failures + 1
                pause_s = min(_STANDBY_S * 2**failures, _MAX_BACKOFF_S)

    def _hold(self, stop: threading.Event) -> None:
        """Be the writer until told to stop; return at once when somebody else is."""
        connection = self._connect()
        try:
            with _as_writer(connection, self._store) as writer, _ahead_of(self._bus) as events:
                if writer is not None:
                    lander = _Lander(
                        connection, events=events, writer=writer, store=self._store, shard_rows=self._shard_rows
                    )
                    try:
                        with mounted_if_behind(connection, writer.position) as archived:
                            if archived:
                                lander.land(upto=archived)
                        self._land(lander, connection, stop)
                    finally:
                        self._reached = max(self._reached, writer.position)
        finally:
            connection.close()

    def _land(self, lander: _Lander, connection: Connection, stop: threading.Event) -> None:
        opened_at: float | None = None
        while not stop.is_set():
            left_s = self._flush_s if opened_at is None else opened_at + self._flush_s - self._clock()
            quiet = not lander.take_next(block_s=max(min(left_s, _IDLE_S), 0.0))
            if quiet:
                lander.take_from_log(upto=bring_up_to_date(connection, schema=self._schema))
            now = self._clock()
            if not lander.has_open_range:
                opened_at = None
            elif opened_at is None:
                opened_at = now
            if opened_at is not None and now - opened_at >= self._flush_s:
                lander.commit()
                opened_at = None
            lander.show_alive(now)
        lander.commit()


class _Lander:
    """Fills the store, for as long as it is its writer."""

    def __init__(
        self, connection: Connection, *, events: _Ahead, writer: StoreWriter, store: TrainingStore, shard_rows: int
    ) -> None:
        self._connection = connection
        self._events = events
        self._writer = writer
        self._consumer = consumer_name(store)
        self._shard_rows = shard_rows
        self._log = LogLines(connection)
        self._deriver = Deriver(self._log)
        self._taken = writer.position
        self._last_line = b""
        self._trouble = ""
        self.on_taken: Callable[[int], None] = _nobody
        self._alive_at = float("-inf")
        self._check_same_log(store)

    @property
    def has_open_range(self) -> bool:
        """Whether something was taken that is not durable yet."""
        return self._taken > self._writer.position

    def land(self, *, upto: int) -> int:
        """Land everything up to a position, from the bus as far as it has it."""
        self.on_taken(self._taken)
        while self._taken < upto and (self.take_next(block_s=0.0, upto=upto) or self.take_from_log(upto=upto)):
            pass
        self.commit()
        return self._writer.position

    def take_next(self, *, block_s: float, upto: int | None = None) -> bool:
        """Take what the bus has next, after filling the gap before it from the log; False when it had nothing."""
        events = self._from_bus(block_s)
        if upto is not None:
            events = [event for event in events if event[0] <= upto]
        if not events:
            return False
        if events[0][0] > self._taken + 1:
            self.take_from_log(upto=events[0][0] - 1)
        following = _following(events, self._taken)
        if not following:
            return False
        if not self._is_of_this_log(following[-1]):
            self.take_from_log(upto=following[-1][0])
            return False
        self._take(following)
        return True

    def take_from_log(self, *, upto: int) -> bool:
        """Take the positions up to `upto` from the log itself; False when it has none."""
        before = self._taken
        for lines in self._log.iterate(after=before, upto=upto, page=PAGE):
            self._take(lines)
        return self._taken > before

    def commit(self) -> None:
        """Make durable what was taken, and show how far that is."""
        if not self.has_open_range:
            return
        self._writer.commit(last=self._taken, last_event_id=_event_id(self._last_line))
        self._show()

    def show_alive(self, now: float) -> None:
        """Show now and then that this store is in use, so that the stream is kept for it."""
        if now - self._alive_at >= _ALIVE_EVERY_S:
            self._alive_at = now
            self._show()

    def _take(self, events: Sequence[Line]) -> None:
        """Write the lines of events that follow what was taken; a range ends at each multiple of `shard_rows`."""
        for part in _cut(events, self._shard_rows):
            for record_type, lines in self._deriver.derive(part):
                self._writer.write(record_type, lines)
            self._taken, _, self._last_line = part[-1]
            if self._taken % self._shard_rows == 0:
                self.commit()
        self.on_taken(self._taken)

    def _from_bus(self, block_s: float) -> Sequence[Line]:
        try:
            events = self._events.read(after=self._taken, block_s=block_s)
        except (Unavailable, ConfigurationError) as error:
            self._say_once("away", f"landing.without_bus reason={error}")
            threading.Event().wait(block_s)
            return ()
        if self._trouble == "away":
            self._trouble = ""
        return events

    def _is_of_this_log(self, event: Line) -> bool:
        """Compare the last of a stretch with the log; whoever published it published the ones before it."""
        position, _, data = event
        event_id = self._log.event_id(position)
        if event_id is not None and event_id == _event_id(data):
            return True
        self._say_once("foreign", f"landing.foreign_stream position={position}: the bus carries another log")
        return False

    def _say_once(self, trouble: str, message: str) -> None:
        if self._trouble != trouble:
            logger.warning("%s; reading PostgreSQL instead", message)
        self._trouble = trouble

    def _check_same_log(self, store: TrainingStore) -> None:
        position, theirs = self._writer.position, self._writer.last_event_id
        ours = self._log.event_id(position) if position else None
        if ours != theirs:
            raise StoreCorrupted(
                f"the training store {store.name} was written from another log: at position {position} it has event "
                f"{theirs}, this database has {ours or 'none'}. Was the database made anew or restored? Choose "
                "another folder, or move this one away to have it written again",
                location=store.name,
            )

    def _show(self) -> None:
        consumers.save(self._connection, self._consumer, self._writer.position)


class _Ahead:
    """Reads a bus; while a full page is being worked on, the next is on its way."""

    def __init__(self, bus: Bus, pool: Executor) -> None:
        self._bus = bus
        self._pool = pool
        self._coming: tuple[int, Future[list[BusEvent]]] | None = None

    def read(self, *, after: int, block_s: float) -> list[BusEvent]:
        """Give what comes after a position, as `Bus.read` does."""
        events = self._came(after) or self._bus.read(after=after, limit=PAGE, block_s=block_s)
        if len(events) >= _FULL:
            last = events[-1].position
            self._coming = (last, self._pool.submit(self._bus.read, after=last, limit=PAGE))
        return events

    def _came(self, after: int) -> list[BusEvent]:
        coming, self._coming = self._coming, None
        if coming is None:
            return []
        events = coming[1].result()
        return events if coming[0] == after else []


@contextmanager
def _as_writer(connection: Connection, store: TrainingStore) -> Generator[StoreWriter | None]:
    """Be the writer of a store; None when another process is."""
    with landing_turn(connection, store) as mine:
        if not mine:
            yield None
            return
        with store.writing() as writer:
            yield writer


@contextmanager
def _ahead_of(bus: Bus) -> Generator[_Ahead]:
    with ThreadPoolExecutor(1, thread_name_prefix="workledger-landing") as pool:
        yield _Ahead(bus, pool)


class _Identity(msgspec.Struct, frozen=True, gc=False):
    event_id: str


_decode_identity = msgspec.json.Decoder(_Identity).decode


def _event_id(line: bytes) -> str:
    return _decode_identity(line).event_id


def _following(events: Sequence[Line], after: int) -> Sequence[Line]:
    """Give those of the events that follow a position without a gap."""
    events = [event for event in events if event[0] > after]
    count = 0
    while count < len(events) and events[count][0] == after + 1 + count:
        count += 1
    return events[:count]


def _cut(events: Sequence[Line], every: int) -> Iterator[Sequence[Line]]:
    """Cut a dense stretch of events after each multiple of `every`."""
    start = 0
    while start < len(events):
        end = min(start + every - (events[start][0] - 1) % every, len(events))
        yield events[start:end]
        start = end


def _nobody(*_: int) -> None:
    """Hear of the progress, and say nothing."""
