"""The arrow from the log to the bus: sequence, publish in the order of the log, forget what is landed."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

import psycopg
from psycopg import sql

from workledger.errors import ConfigurationError, Unavailable
from workledger.flows.whole_log import WholeLog
from workledger.log.archive_index import last_archived
from workledger.log.consumers import consumers
from workledger.log.reader import head
from workledger.log.sequencer import channel, sequence
from workledger.postgres.connection import Connection, translate_errors
from workledger.synapse.bus import Bus, BusEvent
from workledger.training.log_lines import LogLines

__all__ = ["TRAINING_CONSUMER", "DatabaseTail", "Publisher", "bring_up_to_date", "durable_position", "publish_once"]

logger = logging.getLogger(__name__)

#: Training writers keep their cursor under this prefix in the table of consumers.
TRAINING_CONSUMER: Final = "training:"
#: A training store whose cursor has not moved for so long is abandoned: it does not keep the stream from being cut.
ABANDONED_AFTER: Final = timedelta(days=1)
#: An empty stream is not filled with more than this: readers take what is older from PostgreSQL, which is faster.
MAX_BACKLOG: Final = 200_000
PAGE: Final = 1000
_MIN_PAUSE_S: Final = 0.02
_MAX_PAUSE_S: Final = 0.25
_MAX_BACKOFF_S: Final = 10.0


def bring_up_to_date(connection: Connection, *, schema: str) -> int:
    """Give positions to the events that wait for one, and give the head. Costs a read when there are none."""
    position, waiting = head(connection)
    if waiting:
        sequence(connection, schema=schema)
        position, _ = head(connection)
    return position


def durable_position(connection: Connection, *, now: datetime | None = None) -> int | None:
    """Give the position up to which every training store in use has landed; None when there is no store."""
    now = now or datetime.now(UTC)
    positions = [
        consumer.position
        for consumer in consumers(connection)
        if consumer.name.startswith(TRAINING_CONSUMER) and now - consumer.updated_at < ABANDONED_AFTER
    ]
    return min(positions, default=None)


def publish_once(connection: Connection, *, bus: Bus, schema: str) -> int:
    """Publish what the bus lacks and give how many events that were; copies of this may run at once."""
    return _Round(connection, bus=bus, schema=schema, known_top=0).publish()


class Publisher:
    """Publishes until it is told to stop. Several may run: what one has published, the others find there."""

    def __init__(self, *, connect: Callable[[], Connection], bus: Bus, schema: str) -> None:
        self._connect = connect
        self._bus = bus
        self._schema = schema
        self._connection: Connection | None = None
        self._known_top = 0

    def publish_once(self) -> int:
        """Publish what the bus lacks; gives how many events that were. Raises what cannot be reached."""
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        one_round = _Round(self._connection, bus=self._bus, schema=self._schema, known_top=self._known_top)
        published = one_round.publish()
        self._known_top = one_round.known_top
        return published

    def run(self, stop: threading.Event) -> None:
        """Loop until `stop` is set. What is away is tried again, ever more rarely, and said once."""
        pause_s, ill = _MIN_PAUSE_S, False
        while not stop.wait(pause_s):
            try:
                busy = self.publish_once() > 0
            except (Unavailable, ConfigurationError) as error:
                if not ill:
                    logger.warning("publisher.waiting reason=%s", error)
                ill, pause_s = True, min(max(pause_s * 2, 0.5), _MAX_BACKOFF_S)
                self.close()
                continue
            if ill:
                logger.warning("publisher.recovered")
            ill, pause_s = False, _MIN_PAUSE_S if busy else min(pause_s * 2, _MAX_PAUSE_S)
        self.close()

    def close(self) -> None:
        """Close the connection to PostgreSQL; the next call opens another. The bus is the caller's."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Round:
    """One look at the log and at the bus."""

    def __init__(self, connection: Connection, *, bus: Bus, schema: str, known_top: int) -> None:
        self._connection = connection
        self._lines = LogLines(connection)
        self._bus = bus
        self._schema = schema
        self.known_top = known_top

    def publish(self) -> int:
        log_head = bring_up_to_date(self._connection, schema=self._schema)
        top = self._bus.last_position()
        if top != self.known_top:
            self._check_same_log(top, log_head)
        durable = durable_position(self._connection)
        after = max(top, durable or 0, log_head - MAX_BACKLOG)
        if top < log_head:
            # The last event is published though every store has landed it: by it followers see that they lack others.
            # What is archived is not carried again; who needs it reads the archive.
            after = max(min(after, log_head - 1), last_archived(self._connection))
        published = self._publish(after=after, upto=log_head)
        self.known_top = max(top, log_head) if published else top
        if durable and published:
            self._bus.trim(below=durable + 1)
        return published

    def _publish(self, *, after: int, upto: int) -> int:
        """Publish page by page, in order; while one goes out, the next is read."""
        published = 0
        with ThreadPoolExecutor(1, thread_name_prefix="workledger-publishing") as pool:
            before: Future[None] | None = None
            for page in self._lines.iterate(after=after, upto=upto, page=PAGE):
                events = [BusEvent(*line) for line in page]
                if before is not None:
                    before.result()
                before = None
                if events[-1].position < upto:
                    before = pool.submit(self._bus.publish, events)
                else:  # nothing is left to read meanwhile; most often there is just this page, and no thread is made
                    self._bus.publish(events)
                published += len(page)
            if before is not None:
                before.result()
        return published

    def _check_same_log(self, top: int, log_head: int) -> None:
        """Refuse to continue the stream of another log: a database made anew, restored, or of another project."""
        if top > log_head:  # somebody else may have recorded and published since that look at the log
            log_head, _ = head(self._connection)
        if top > log_head:
            self._refuse(top, f"the log ends at {log_head}")
        for event in self._bus.read(after=top - 1, limit=1) if top else ():
            event_id = self._lines.event_id(event.position)
            if event_id is None or f'"event_id":"{event_id}"'.encode() not in event.data:
                self._refuse(event.position, "the log has another event there")

    def _refuse(self, position: int, why: str) -> None:
        raise ConfigurationError(
            f"the bus holds position {position} of another log: {why}. Was the database made anew or restored? Delete "
            f"the stream (redis-cli DEL 'workledger:{{{self._schema}}}:events'), or choose another project",
            setting="WORKLEDGER_SYNAPSE_URL",
            value=position,
        )


class DatabaseTail:
    """The end of the log, for the bus that is none (`synapse.postgres.LogTail`). Opens its connection when asked.

    `whole` is for who has nothing else to read: then it gives what is archived, too.
    """

    _lines: LogLines | WholeLog

    def __init__(
        self, *, connect: Callable[[], Connection], schema: str, listen: bool = True, whole: bool = False
    ) -> None:
        self._connect = connect
        self._whole = whole
        self._channel = channel(schema)
        self._listen = listen
        self._connection: Connection | None = None

    def head(self) -> int:
        """Give the last position of the log."""
        return head(self._live())[0]

    def read(self, *, after: int, limit: int) -> list[BusEvent]:
        """Give the events after a position."""
        self._live()
        return [BusEvent(*line) for line in self._lines.read(after=after, limit=limit)]

    def wait(self, timeout_s: float) -> None:
        """Wait for the sequencer's notification, at most so long."""
        connection = self._live()
        if isinstance(self._lines, WholeLog):
            self._lines.close()  # whoever waits, for however long, keeps no partition from being dropped
        if not self._listen:
            threading.Event().wait(min(timeout_s, _MAX_PAUSE_S))
            return
        with translate_errors():
            deque(connection.notifies(timeout=timeout_s, stop_after=1), maxlen=0)
            # One batch or many: what was said meanwhile is heard by the same reading.
            deque(connection.notifies(timeout=0), maxlen=0)

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    def _live(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
            self._lines = WholeLog(self._connection) if self._whole else LogLines(self._connection)
            if self._listen:
                with translate_errors():
                    self._connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)), prepare=False)
        return self._connection
