"""Archived events in their places among those of the database, for every way of reading the log.

What is asked of the database comes first. Where it has not all there may be, `archives` says which files have the
rest; without an archive that is one look at an empty table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Final
from uuid import UUID

import msgspec

from workledger.log import archive_index
from workledger.log.archive_index import Span
from workledger.log.archive_leaves import sealed_event
from workledger.log.archive_merge import Source, merged
from workledger.log.digests import SealedEvent
from workledger.model.archived import ArchiveFile, EventArchive, Wanted
from workledger.model.records import Event
from workledger.postgres.archive_access import access_for
from workledger.postgres.connection import Connection

__all__ = [
    "entity_events",
    "id_floor",
    "newest_events",
    "next_id",
    "numbered_lines",
    "sealed_events",
    "timed_events",
    "with_archived",
    "workflow_events",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = 2**63 - 1
_LINE_START: Final = len('{"position":')

#: Gives the last position of the log as it is to be seen.
Head = Callable[[], int]


def with_archived(connection: Connection, events: list[Event], *, after: int, upto: int, head: Head) -> list[Event]:
    """The events at positions after one and up to another, of which `events` are those that the database has."""
    files = archive_index.between(connection, after=after, upto=upto)
    if not files:
        return events
    spans = [(file, after, upto) for file in files]
    return _in_order(connection, events, spans, Wanted(), upto=head())


def newest_events(
    connection: Connection, events: list[Event], *, before: int | None, wanted: Wanted, limit: int, head: Head
) -> list[Event]:
    """The newest events that are wanted, newest first, of which `events` are those that the database has."""
    if limit < 1:
        return []
    after = _position(events[-1]) if len(events) == limit else 0
    files = archive_index.between(connection, after=after, upto=_LAST if before is None else before - 1)
    if not files:
        return events
    upto = head() if before is None else min(before - 1, head())
    found = {_position(event): event for event in events}
    for file in sorted(files, key=lambda file: file.last_position or 0, reverse=True):
        newest = sorted(found, reverse=True)[:limit]
        if len(newest) == limit and newest[-1] > (file.last_position or 0):
            break
        inside = _open(connection, file).events(after=after, upto=upto, wanted=wanted, newest_first=True)
        for event in islice(inside, limit):
            found.setdefault(_position(event), event)
    return [found[position] for position in sorted(found, reverse=True)[:limit]]


def workflow_events(connection: Connection, events: list[Event], workflow_id: str, *, head: Head) -> list[Event]:
    """The events of a workflow in order, of which `events` are those that the database has."""
    spans = archive_index.of_workflow(connection, workflow_id)
    if not spans:
        return events
    return _in_order(connection, events, spans, Wanted(workflow_id=workflow_id), upto=head())


def entity_events(
    connection: Connection, events: list[Event], entity: tuple[str, str], *, after: int, limit: int, head: Head
) -> list[Event]:
    """The first events of an entity after a position, of which `events` are those that the database has."""
    spans = archive_index.of_entity(connection, *entity, after=after) if limit > 0 else []
    if not spans:
        return events
    upto = _position(events[-1]) if len(events) == limit else head()
    wanted = Wanted(entity_type=entity[0], entity_id=entity[1])
    spans = [(file, max(first, after), last) for file, first, last in spans]
    return _in_order(connection, events, spans, wanted, upto=upto)[:limit]


def timed_events(
    connection: Connection, live: Sequence[Event], *, from_id: str, before_id: str, event_type: str | None
) -> Iterator[Event]:
    """The events with ids from one up to, but without, another, in order, of which `live` are those of the database."""
    sources = [Source("", lambda: ((event.event_id, event) for event in live))]
    for file in archive_index.over_time(connection, from_id=from_id, before_id=before_id):
        reading = partial(_timed, connection, file, from_id, before_id, event_type)
        sources.append(Source("" if file.first_time is None else id_floor(file.first_time), reading))
    return (event for _, event in merged(sources))


def id_floor(at: datetime) -> str:
    """The smallest id of an instant: what `uuid_floor` of the database gives."""
    since = at - _EPOCH
    milliseconds = (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
    return str(UUID(int=max(milliseconds, 0) << 80))


def next_id(event_id: str) -> str:
    """The id after another one."""
    return str(UUID(int=UUID(event_id).int + 1))


def numbered_lines(
    connection: Connection, files: Iterable[ArchiveFile], live: Iterator[bytes], *, after: int, upto: int
) -> Iterator[bytes]:
    """The lines of the events after a position and up to another, of which `live` gives those of the database."""
    numbered = ((int(line[_LINE_START : line.index(b",")]), line) for line in live)
    archived = (Source(file.first_position or 0, partial(_lines, connection, file, after, upto)) for file in files)
    return (line for _, line in merged([Source(0, lambda: numbered), *archived]))


def sealed_events(connection: Connection, events: list[SealedEvent]) -> list[SealedEvent]:
    """What stands at positions, with those that are archived in the place of those that are not there."""
    gone = {event.position: event for event in events if not event.is_there}
    if not gone:
        return events
    found: dict[int, SealedEvent] = {}
    first, last = min(gone), max(gone)
    for file in archive_index.between(connection, after=first - 1, upto=last):
        for columns in _open(connection, file).columns(after=first - 1, upto=last):
            for at, position in enumerate(columns.position):
                if position in gone:
                    event = sealed_event(columns, at, {})
                    found[position] = msgspec.structs.replace(event, erased=gone[position].erased)
    return [event if event.is_there else found.get(event.position, event) for event in events]


def _open(connection: Connection, file: ArchiveFile) -> EventArchive:
    return access_for(connection, file).events(file)


def _lines(connection: Connection, file: ArchiveFile, after: int, upto: int) -> Iterator[tuple[int, bytes]]:
    return _open(connection, file).lines(after=after, upto=upto)


def _timed(
    connection: Connection, file: ArchiveFile, from_id: str, before_id: str, event_type: str | None
) -> Iterator[tuple[str, Event]]:
    inside = _open(connection, file).over_time(from_id=from_id, before_id=before_id, event_type=event_type)
    return ((event.event_id, event) for event in inside)


def _in_order(
    connection: Connection, events: Iterable[Event], spans: Sequence[Span], wanted: Wanted, *, upto: int
) -> list[Event]:
    """Events by position; those that have none come last, as they came."""
    found = {
        _position(event): event
        for file, first, last in spans
        for event in _open(connection, file).events(after=first, upto=min(last, upto), wanted=wanted)
    }
    waiting = [event for event in events if event.position is None]
    found |= {event.position: event for event in events if event.position is not None}
    return [found[position] for position in sorted(found)] + waiting


def _position(event: Event) -> int:
    return event.position or 0
