"""Archived events against their seals: the digests of rows that were read back from a file.

The digests are those of workledger.log.digests, made for a stretch of rows at once.
"""

from __future__ import annotations

import uuid
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, Final

import psycopg

from workledger.log import seal
from workledger.log.digests import SealedEvent
from workledger.log.merkle import HASH_BYTES
from workledger.log.seal import Seal
from workledger.model.archived import EventColumns
from workledger.model.findings import Finding
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = ["SealComparison", "erased_commitments", "leaves", "sealed_event"]

_SALT_BYTES: Final = 16


def erased_commitments(connection: Connection, *, first_id: str, next_id: str) -> dict[str, bytes]:
    """What the seals commit to for erased payloads of these events, by the event's id."""
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.log", "erased_commitments"), (first_id, next_id), binary=True)
        return dict(cursor.fetchall())


def leaves(columns: EventColumns, erased: Mapping[str, bytes]) -> list[bytes]:
    """The digests of a stretch of events."""
    if not columns.is_plain:
        return [sealed_event(columns, at, erased).leaf for at in range(len(columns.position))]
    rows = zip(
        _commitments(columns, erased),
        columns.created_at,
        _quoted(columns.entity_id),
        _quoted(columns.entity_type),
        columns.event_id,
        _quoted(columns.event_type),
        columns.position,
        columns.recorded_at,
        columns.schema_version,
        _quoted(columns.severity),
        _quoted(columns.workflow_id),
        strict=True,
    )
    # The canonical JSON of SealedEvent.envelope: no text here needs an escape.
    return [
        sha256(
            f'\0{{"commitment":"{commitment}","created_at":"{created}","entity_id":{who},"entity_type":{what},'
            f'"event_id":"{event_id}","event_type":{kind},"position":{position},"recorded_at":"{recorded}",'
            f'"schema_version":{version},"severity":{severity},"workflow_id":{workflow}}}'.encode()
        ).digest()
        for commitment, created, who, what, event_id, kind, position, recorded, version, severity, workflow in rows
    ]


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


def _commitments(columns: EventColumns, erased: Mapping[str, bytes]) -> Iterator[str]:
    salts = bytes.fromhex("".join(columns.salt).replace("-", ""))
    starts = range(0, len(salts), _SALT_BYTES)
    made = (
        sha256(salts[start : start + _SALT_BYTES] + (payload or b"")).hexdigest()
        for start, payload in zip(starts, columns.payload, strict=True)
    )
    if not erased:
        return made
    kept = (erased.get(event_id) for event_id in columns.event_id)
    return (old.hex() if old is not None else new for old, new in zip(kept, made, strict=True))


def _quoted(texts: Any) -> list[str]:
    known = {text: "null" if text is None else f'"{text}"' for text in set(texts)}
    return [known[text] for text in texts]


class SealComparison:
    """Compares stretches of archived events with what was sealed, and says which event is another one."""

    def __init__(self, connection: Connection, *, location: str, erased: Mapping[str, bytes]) -> None:
        self._connection = connection
        self._location = location
        self._erased = erased
        self._seal: Seal | None = None
        self.findings: list[Finding] = []
        self.unsealed = 0

    def check(self, columns: EventColumns) -> None:
        """Check a stretch; its positions ascend."""
        found = leaves(columns, self._erased)
        at, size = 0, len(found)
        while at < size:
            one = self._seal_of(columns.position[at])
            if one is None:
                self.unsealed += size - at
                return
            end = bisect_right(columns.position, one.last_position, at)
            if b"".join(found[at:end]) != _expected(one, columns.position[at:end]):
                self._locate(one, columns, found, range(at, end))
            at = end

    def _seal_of(self, position: int) -> Seal | None:
        if self._seal is None or not self._seal.first_position <= position <= self._seal.last_position:
            self._seal = seal.seal_of(self._connection, position)
        return self._seal

    def _locate(self, one: Seal, columns: EventColumns, found: list[bytes], rows: range) -> None:
        for at in rows:
            position = columns.position[at]
            if found[at] != _expected(one, [position]):
                self.findings.append(
                    Finding(
                        kind="archive.altered",
                        location=f"{self._location}: position {position}",
                        message=f"{columns.event_type[at]} of {columns.entity_type[at]} {columns.entity_id[at]!r} "
                        f"(event {columns.event_id[at]}) is not the event that was sealed",
                    )
                )


def _expected(one: Seal, positions: Any) -> bytes:
    first, last = positions[0], positions[-1]
    start = (first - one.first_position) * HASH_BYTES
    if last - first + 1 == len(positions):
        return one.leaves[start : (last - one.first_position + 1) * HASH_BYTES]
    starts = ((position - one.first_position) * HASH_BYTES for position in positions)
    return b"".join(one.leaves[start : start + HASH_BYTES] for start in starts)
