"""Following the log as it grows, and dealing with each of its events once.

A follower is woken by whoever sequences, and looks by itself from time to time in any case: a notification may be
lost, and behind PgBouncer in transaction mode there is none. It sequences too, so that it needs nobody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from typing import Final

import psycopg
from psycopg import sql

from workledger.log.consumers import save
from workledger.log.follow_selection import Selection
from workledger.log.reader import head, read
from workledger.log.sequencer import channel, sequence
from workledger.model.records import Event
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = ["consume", "follow", "listen", "wait"]

POLL_S: Final = 1.0
PAGE: Final = 1000


def follow(
    connection: Connection,
    *,
    schema: str,
    after: int | None = None,
    selection: Selection | None = None,
    poll_s: float = POLL_S,
    idle_s: float | None = None,
    stop: threading.Event | None = None,
    listening: bool = True,
) -> Iterator[Event]:
    """Every event after a position (default: from now on) in the order of the log, as they come, without end.

    Ends when `stop` is set, or when nothing has come for `idle_s`; that is noticed within `poll_s`. The connection
    must be in autocommit, and is the follower's until it ends.
    """
    position = head(connection)[0] if after is None else after
    with _listening(connection, schema) if listening else nullcontext():
        quiet_since_s = time.monotonic()
        while stop is None or not stop.is_set():
            _, waiting = head(connection)
            if waiting:
                sequence(connection, schema=schema)
            while events := read(connection, after=position, limit=PAGE):
                position = events[-1].position or position
                yield from events if selection is None else filter(selection.admits, events)
                quiet_since_s = time.monotonic()
            if idle_s is not None and time.monotonic() - quiet_since_s >= idle_s:
                return
            _pause(connection, poll_s if idle_s is None else min(poll_s, idle_s), listening=listening)


@contextmanager
def consume(connection: Connection, name: str, *, limit: int = PAGE) -> Generator[list[Event]]:
    """Give the next events of a named consumer, and move its cursor in the same transaction as what the block does.

    >>> with consume(connection, "mailer") as events:
    ...     for event in events:
    ...         connection.execute("INSERT INTO outbox ...")

    Whatever the block writes over this connection is committed together with the cursor: each event has its effect
    once, whatever is killed when. Copies of a consumer queue on the cursor. An error in the block rolls both back.
    """
    with connection.transaction():
        with translate_errors():
            position = _take(connection, name)
            events = read(connection, after=position, limit=limit)
        yield events
        if events:
            save(connection, name, events[-1].position or position)


def listen(connection: Connection, *, schema: str) -> None:
    """Have this connection told when the log grows."""
    _run(connection, sql.SQL("LISTEN {}"), schema)


def wait(connection: Connection, *, timeout_s: float) -> bool:
    """Wait until the connection is told that the log has grown, at most `timeout_s`; True when it was told."""
    with translate_errors():
        return any(True for _ in connection.notifies(timeout=timeout_s, stop_after=1))


def _pause(connection: Connection, timeout_s: float, *, listening: bool) -> None:
    if listening:
        wait(connection, timeout_s=timeout_s)
    else:
        time.sleep(timeout_s)


@contextmanager
def _listening(connection: Connection, schema: str) -> Generator[None]:
    listen(connection, schema=schema)
    try:
        yield
    finally:
        if not connection.closed and not connection.broken:
            _run(connection, sql.SQL("UNLISTEN {}"), schema)


def _run(connection: Connection, command: sql.SQL, schema: str) -> None:
    with translate_errors():
        connection.execute(command.format(sql.Identifier(channel(schema))), prepare=False)


def _take(connection: Connection, name: str) -> int:
    """Lock a consumer's cursor, made where there is none, until the end of the transaction."""
    with psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.log", "make_consumer"), (name,))
        cursor.execute(load("workledger.log", "lock_consumer"), (name,))
        ((position,),) = cursor.fetchall()
        return position
