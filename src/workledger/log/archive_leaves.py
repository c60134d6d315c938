"""Archived events against their seals: the digests of rows that were read back from a file.

The digests are those of workledger.log.digests, made for a stretch of rows at once.
"""

from __future__ import annotations

import uuid
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

import psycopg

from workledger.log import seal
from workledger.log.digests import SealedEvent
from workledger.log.merkle import HASH_BYTES
from workledger.log.seal import Seal
from workledger.model.archived import EnvelopeArchive, Envelopes, EventColumns
from workledger.model.findings import Finding
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = ["SealComparison", "erased_commitments", "leaves", "sealed_event"]

_SALT_BYTES: Final = 16
#: What every entry begins with: the mark of a leaf (RFC 6962), and the first member of the envelope.
_BEFORE: Final = b'\0{"commitment":"'


def erased_commitments(connection: Connection, *, first_id: str, next_id: str) -> dict[str, bytes]:
    """What the seals commit to for erased payloads of these events, by the event's id."""
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.log", "erased_commitments"), (first_id, next_id), binary=True)
        return dict(cursor.fetchall())


def leaves(envelopes: Envelopes, erased: Mapping[str, bytes]) -> list[bytes]:
    """The digests of a stretch of events of which no text needs an escape (`SealedEvent.leaf`)."""
    commitments = _commitments(envelopes, erased)
    rows = zip(commitments, envelopes.rests, strict=True)
    return [sha256(_BEFORE + commitment + rest).digest() for commitment, rest in rows]


def sealed_event(columns: EventColumns, at: int, erased: Mapping[str, bytes]) -> SealedEvent:
    """One of the events, as what its digest is made of."""
    payload = columns.payload[at]
    return SealedEvent(
        position=columns.position[at],
        event_id=columns.event_id[at],
        event_type=columns.event_type[at],
        entity_type=columns.entity_type[at],
        entity_id=columns.entity_id[at],
        workflow_id=columns.workflow_id[at],
        severity=columns.severity[at],
        created_at=columns.created_at[at],
        recorded_at=columns.recorded_at[at],
        schema_version=columns.schema_version[at],
        payload_json=None if payload is None else payload.decode(),
        salt=uuid.UUID(columns.salt[at]),
        erased=erased.get(columns.event_id[at]),
    )


def _commitments(envelopes: Envelopes, erased: Mapping[str, bytes]) -> Iterator[bytes]:
    salts = envelopes.salts
    starts = range(0, len(salts), _SALT_BYTES)
    made = (
        sha256(salts[start : start + _SALT_BYTES] + (payload or b"")).hexdigest().encode()
        for start, payload in zip(starts, envelopes.payload, strict=True)
    )
    if not erased:
        return made
    kept = (erased.get(event_id) for event_id in envelopes.event_id)
    return (old.hex().encode() if old is not None else new for old, new in zip(kept, made, strict=True))


class SealComparison:
    """Compares archived events with what was sealed, and says which event is another one."""

    def __init__(
        self, connection: Connection, content: EnvelopeArchive, *, location: str, erased: Mapping[str, bytes]
    ) -> None:
        self._connection = connection
        self._content = content
        self._location = location
        self._erased = erased
        self._seal: Seal | None = None
        self.findings: list[Finding] = []
        self.unsealed = 0

    def check(self, envelopes: Envelopes) -> None:
        """Check a stretch; its positions ascend."""
        positions = envelopes.position
        found = leaves(envelopes, self._erased) if envelopes.rests else self._leaves_by_one(positions)
        at, size = 0, len(found)
        while at < size:
            one = self._seal_of(positions[at])
            if one is None:
                self.unsealed += size - at
                return
            end = bisect_right(positions, one.last_position, at)
            if b"".join(found[at:end]) != _expected(one, positions[at:end]):
                self._locate(one, dict(zip(positions[at:end], found[at:end], strict=True)))
            at = end

    def _leaves_by_one(self, positions: Sequence[int]) -> list[bytes]:
        """The same digests, of events with any text in them."""
        return [event.leaf for event in self._events(positions[0], positions[-1])]

    def _events(self, first: int, last: int) -> Iterator[SealedEvent]:
        for columns in self._content.columns(after=first - 1, upto=last):
            yield from (sealed_event(columns, at, self._erased) for at in range(len(columns.position)))

    def _seal_of(self, position: int) -> Seal | None:
        if self._seal is None or not self._seal.first_position <= position <= self._seal.last_position:
            self._seal = seal.seal_of(self._connection, position)
        return self._seal

    def _locate(self, one: Seal, found: Mapping[int, bytes]) -> None:
        for event in self._events(min(found), max(found)):
            if found[event.position] != _expected(one, [event.position]):
                self.findings.append(
                    Finding(
                        kind="archive.altered",
                        location=f"{self._location}: position {event.position}",
                        message=f"{event.event_type} of {event.entity_type} {event.entity_id!r} "
                        f"(event {event.event_id}) is not the event that was sealed",
                    )
                )


def _expected(one: Seal, positions: Any) -> bytes:
    first, last = positions[0], positions[-1]
    start = (first - one.first_position) * HASH_BYTES
    if last - first + 1 == len(positions):
        return one.leaves[start : (last - one.first_position + 1) * HASH_BYTES]
    starts = ((position - one.first_position) * HASH_BYTES for position in positions)
    return b"".join(one.leaves[start : start + HASH_BYTES] for start in starts)
