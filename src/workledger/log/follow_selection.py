"""Which events of the log are wanted, and reading only those: by entity, by workflow, by type, by time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import msgspec
import psycopg

from workledger.log.archive_reads import entity_events, id_floor, next_id, timed_events
from workledger.log.reader import head
from workledger.model.change import check_time
from workledger.model.records import Event
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = ["Selection", "of_entity", "over_time"]

PAGE: Final = 1000
_FIRST_ID: Final = "00000000-0000-0000-0000-000000000000"
_LAST_ID: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which events are wanted; what is None does not matter."""

    event_type: str | None = None
    entity_type: str | None = None
    entity_id: str | None = None
    workflow_id: str | None = None
    severity: str | None = None

    def admits(self, event: Event) -> bool:
        """Say whether an event is wanted."""
        return (
            self.event_type in {None, event.event_type}
            and self.entity_type in {None, event.entity_type}
            and self.entity_id in {None, event.entity_id}
            and self.workflow_id in {None, event.workflow_id}
            and self.severity in {None, event.severity}
        )


def of_entity(
    connection: Connection, entity_type: str, entity_id: str, *, after: int = 0, limit: int = PAGE
) -> list[Event]:
    """The events of one entity after a position, in the order of the log; those without a position are left out."""
    events = [Event(*row) for row in _fetch(connection, "read_entity", (entity_type, entity_id, after, limit))]
    return entity_events(
        connection, events, (entity_type, entity_id), after=after, limit=limit, head=lambda: head(connection)[0]
    )


def over_time(
    connection: Connection,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    event_type: str | None = None,
    page: int = PAGE,
) -> Iterator[Event]:
    """The events created from `since` up to, but not including, `until`, in the order of their ids, which is of time.

    Only the partitions of that time are read, a page in memory at a time. Events that wait for a position come too,
    with `position` None.
    """
    bounds = tuple(None if at is None else check_time("time", at) for at in (since, until))
    from_id = _FIRST_ID if bounds[0] is None else id_floor(bounds[0])
    before_id = _LAST_ID if bounds[1] is None else id_floor(bounds[1])
    last: str | None = None
    while True:
        live = [Event(*row) for row in _fetch(connection, "read_time", (*bounds, last, event_type, page))]
        is_last = len(live) < page
        upto = before_id if is_last else next_id(live[-1].event_id)
        yield from timed_events(connection, live, from_id=from_id, before_id=upto, event_type=event_type)
        if is_last:
            return
        last, from_id = live[-1].event_id, upto


def _fetch(connection: Connection, name: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.log", name), parameters)
        return cursor.fetchall()
