"""The events of sealed ranges, hashed again and compared with what was sealed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from workledger.log import digests, seal
from workledger.log.archive_reads import sealed_events
from workledger.log.digests import SealedEvent
from workledger.log.merkle import HASH_BYTES, tree_root
from workledger.log.seal import Seal
from workledger.log.seal_report import SealReport
from workledger.postgres.connection import Connection

__all__ = ["compare", "hash_here", "hash_there"]

# An event that differs is tried at so many other positions, to say where it came from.
_TRIED: Final = 64
_PAGE: Final = 4096


def hash_there(connection: Connection, *, first: int, last: int, meanwhile: Callable[[], None]) -> bytes:
    """The digests of the events as they are now, made by PostgreSQL; `meanwhile` is done while it is at it."""
    return seal.leaves_of(connection, first=first, last=last, meanwhile=meanwhile)


def hash_here(connection: Connection, *, first: int, last: int, meanwhile: Callable[[], None]) -> bytes:
    """The same, made in this process of what PostgreSQL hands over."""
    meanwhile()
    pages = (_read(connection, first=at, last=min(at + _PAGE, last + 1) - 1) for at in range(first, last + 1, _PAGE))
    return b"".join(event.leaf for page in pages for event in page if event.is_there)


def _read(connection: Connection, *, first: int, last: int) -> list[SealedEvent]:
    return sealed_events(connection, digests.read(connection, first=first, last=last))


def compare(
    connection: Connection, chunk: Sequence[Seal], leaves: bytes, report: SealReport, *, doubtful: set[int]
) -> None:
    """Compare the events of a chunk with what was sealed; look closer where they differ."""
    whole = len(leaves) == HASH_BYTES * sum(one.size for one in chunk)
    at = 0
    for one in chunk:
        now = leaves[at : at + HASH_BYTES * one.size]
        at += HASH_BYTES * one.size
        if len(one.leaves) != HASH_BYTES * one.size:
            what = f"has {len(one.leaves) // HASH_BYTES} digests of {one.size} events; they cannot be compared"
            report.add("seal.rewritten", f"seals[{one.number}]", what)
        elif not whole or now != one.leaves or one.number in doubtful:
            _locate(connection, one, report, doubtful=one.number in doubtful)


def _locate(connection: Connection, one: Seal, report: SealReport, *, doubtful: bool) -> None:
    found: dict[int, list[SealedEvent]] = {}
    for event in _read(connection, first=one.first_position, last=one.last_position):
        found.setdefault(event.position, []).append(event)
    differing: dict[int, SealedEvent] = {}
    gone: list[int] = []
    for position in range(one.first_position, one.last_position + 1):
        events = found.get(position, [])
        if len(events) == 1 and events[0].is_there:
            if events[0].leaf != _sealed_leaf(one, position):
                differing[position] = events[0]
        else:
            gone.append(position)
            _tell_gone(position, events, report)
    if not doubtful:
        _tell_differing(one, differing, gone, report)
    elif not gone and _root_of(found) != one.root:
        span = f"event_positions[{one.first_position} to {one.last_position}]"
        report.add("event.altered", span, "these events are not what was sealed, and their digests were rewritten")


def _root_of(found: dict[int, list[SealedEvent]]) -> bytes:
    return tree_root(b"".join(event.leaf for events in found.values() for event in events))


def _sealed_leaf(one: Seal, position: int) -> bytes:
    at = (position - one.first_position) * HASH_BYTES
    return one.leaves[at : at + HASH_BYTES]


def _tell_gone(position: int, events: Sequence[SealedEvent], report: SealReport) -> None:
    place = f"event_positions[{position}]"
    if not events:
        report.add("position.deleted", place, "the position is gone, and what stood there is not known any more")
    elif len(events) > 1:
        report.add("event.inserted", place, f"{len(events)} events stand here, where one was sealed")
    else:
        report.add("event.deleted", place, f"the event {events[0].event_id}, which was sealed here, is gone")


def _tell_differing(one: Seal, differing: dict[int, SealedEvent], gone: Sequence[int], report: SealReport) -> None:
    # An event that was moved has, at the position it came from, the digest that was sealed there.
    candidates = [*differing, *gone] if len(differing) + len(gone) <= _TRIED else []
    for position, event in differing.items():
        near = (position - 1, position + 1)
        tried = (at for at in (*near, *candidates) if one.first_position <= at <= one.last_position)
        came_from = next((at for at in tried if event.leaf_at(at) == _sealed_leaf(one, at)), None)
        place, what = f"event_positions[{position}]", f"{event.event_type} of {event.entity_type} {event.entity_id!r}"
        if came_from is not None:
            report.add("event.moved", place, f"the event here ({event.event_id}) was sealed at position {came_from}")
        else:
            report.add(
                "event.altered",
                place,
                f"this is not the event that was sealed: {event.event_id} ({what}) was altered, or took its place",
            )
