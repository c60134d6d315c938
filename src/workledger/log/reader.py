"""Reading the log: in order, from any position, archived events and all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import psycopg

from workledger.log.archive_reads import newest_events, with_archived, workflow_events
from workledger.model.archived import Wanted
from workledger.model.records import Event
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = ["head", "iterate", "newest", "of_workflow", "read"]

PAGE: Final = 1000


def head(connection: Connection) -> tuple[int, int]:
    """The last position given, and the number of committed events that wait for one."""
    (row,) = _fetch(connection, "head", ())
    return row[0], row[1]


def read(connection: Connection, *, after: int, limit: int = PAGE) -> list[Event]:
    """The events at positions `after + 1` to `after + limit`, in order; fewer only at the head."""
    events = [Event(*row) for row in _fetch(connection, "read", (after, after + limit))]
    if len(events) == limit:
        return events
    return with_archived(connection, events, after=after, upto=after + limit, head=lambda: head(connection)[0])


def iterate(connection: Connection, *, after: int = 0, upto: int | None = None, page: int = PAGE) -> Iterator[Event]:
    """Every event after a position, up to `upto` (default: the head when asked), a page in memory at a time."""
    last = head(connection)[0] if upto is None else upto
    while after < last:
        events = read(connection, after=after, limit=min(page, last - after))
        if not events:
            return
        yield from events
        after = events[-1].position or last


def of_workflow(connection: Connection, workflow_id: str) -> list[Event]:
    """The events of one workflow in the order of the log; `position` is None for those not sequenced yet."""
    events = [Event(*row) for row in _fetch(connection, "read_workflow", (workflow_id,))]
    return workflow_events(connection, events, workflow_id, head=lambda: head(connection)[0])


def newest(
    connection: Connection,
    *,
    before: int | None = None,
    event_type: str | None = None,
    entity_type: str | None = None,
    entity_id: str | None = None,
    limit: int = 50,
) -> list[Event]:
    """The newest sequenced events, newest first; `before` is the last position of the page above."""
    parameters = (before, event_type, entity_type, entity_id, limit)
    events = [Event(*row) for row in _fetch(connection, "read_newest", parameters)]
    wanted = Wanted(event_type=event_type, entity_type=entity_type, entity_id=entity_id)
    return newest_events(
        connection, events, before=before, wanted=wanted, limit=limit, head=lambda: head(connection)[0]
    )


def _fetch(connection: Connection, name: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.log", name), parameters, binary=True)
        return cursor.fetchall()
