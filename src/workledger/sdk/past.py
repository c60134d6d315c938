"""The ledger as it was: the reads of the present, over one connection that sees a moment of the past."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from workledger.flows.as_of import Past, as_of, position_at
from workledger.log import reader
from workledger.log.sequencer import sequence
from workledger.model.records import Conversation
from workledger.postgres.connection import Connection
from workledger.postgres.pool import ConnectionPool
from workledger.sdk.reading import ReadingMixin

__all__ = ["PastLedger", "look_back"]


class PastLedger(ReadingMixin):
    """What a ledger gave when the last event was the one at `position`; made by `Ledger.as_of`, and only for reading.

    What a read says of now, as the last day of `statistics`, it says of the moment when that event was recorded.
    Used by one thread at a time.
    """

    def __init__(self, past: Past, connection: Connection, at: datetime) -> None:
        self.pool = _Lent(connection)
        self.clock = _Stopped(at)
        self.position = past.position
        self.at = at
        self._past = past

    def get_conversation(self, conversation_id: str) -> Conversation:
        """One conversation as it stood; raises `NotFound` when it had not begun."""
        return self._past.get_conversation(conversation_id)

    def count_by_status(self) -> dict[str, dict[str, int]]:
        """How many workflows and executions stood in each status."""
        return self._past.count_by_status()


@contextmanager
def look_back(
    connection: Connection, at: int | datetime | None, *, schema: str, workflow_id: str | None = None
) -> Generator[PastLedger]:
    """Give the ledger as it was at a position or a time (None: at the head), for the block."""
    sequence(connection, schema=schema)
    position = _position(connection, at)
    moment = _recorded_at(connection, position)
    with as_of(connection, position, schema=schema, workflow_id=workflow_id) as past:
        yield PastLedger(past, connection, moment)


def _position(connection: Connection, at: int | datetime | None) -> int:
    if at is None:
        return reader.head(connection)[0]
    return position_at(connection, at) if isinstance(at, datetime) else at


def _recorded_at(connection: Connection, position: int) -> datetime:
    """The moment of an event; that of the present where there is none."""
    for event in reader.read(connection, after=position - 1, limit=1) if position > 0 else ():
        return event.recorded_at
    ((now,),) = connection.execute("SELECT now()").fetchall()
    return now


class _Lent(ConnectionPool):
    """A pool of one connection, which is somebody else's to close."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(lambda: connection)

    @contextmanager
    def connection(self) -> Generator[Connection]:
        yield self._connect()


@dataclass(frozen=True)
class _Stopped:
    """A clock that stands still."""

    at: datetime

    def now(self) -> datetime:
        return self.at

    def monotonic_s(self) -> float:
        return 0.0
