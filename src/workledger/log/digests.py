"""What a seal commits to: the digest of an event, made from nothing but the event.

An entry is the canonical JSON (RFC 8785) of the envelope of an event at its position, with a commitment in the place
of the payload. The commitment is SHA-256(salt || payload): when salt and payload are erased, it says nothing about
what was there. The payload is hashed as PostgreSQL prints its `jsonb`: sorted keys, no repetitions, every digit of
every number; docs/decisions/0008-seals.md says why that, and not RFC 8785, which would round numbers.

`queries/leaves.sql` makes the same digests inside PostgreSQL, several times faster; this module is for one event, for
what is no longer in the database, and for whoever does not trust the server to hash.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec

from workledger.log.merkle import leaf_hash
from workledger.log.seal_plans import pinned
from workledger.model.canonical import canonicalise
from workledger.postgres.connection import Connection
from workledger.postgres.statements import load

__all__ = ["SealedEvent", "commitment", "instant", "read"]


class SealedEvent(msgspec.Struct, frozen=True):
    """What stands at a position, with all that its digest is made of; instants are text as `instant` writes them.

    `payload_json` is what was committed to, None for SQL NULL; `erased` is the commitment that was kept when the
    payload was erased; `is_there` is False when the position names an event that is not in the database.
    """

    position: int
    event_id: str
    event_type: str | None
    entity_type: str | None
    entity_id: str | None
    workflow_id: str | None
    severity: str | None
    created_at: str | None
    recorded_at: str | None
    schema_version: int | None
    payload_json: str | None
    salt: uuid.UUID | None
    erased: bytes | None = None
    is_there: bool = True

    @property
    def committed(self) -> bytes:
        """The commitment to the payload."""
        return self.erased or commitment(self.salt or uuid.UUID(int=0), self.payload_json)

    @property
    def envelope(self) -> dict[str, Any]:
        """What the entry is the canonical JSON of."""
        return {
            "commitment": self.committed.hex(),
            "created_at": self.created_at,
            "entity_id": self.entity_id,
            "entity_type": self.entity_type,
            "event_id": self.event_id,
            "event_type": self.event_type,
            "position": self.position,
            "recorded_at": self.recorded_at,
            "schema_version": self.schema_version,
            "severity": self.severity,
            "workflow_id": self.workflow_id,
        }

    @property
    def leaf(self) -> bytes:
        """The digest of the event."""
        return leaf_hash(canonicalise(self.envelope))

    def leaf_at(self, position: int) -> bytes:
        """The digest that the event would have at another position."""
        return leaf_hash(canonicalise({**self.envelope, "position": position}))


def commitment(salt: uuid.UUID, payload_json: str | None) -> bytes:
    """The commitment to a payload, as `jsonb` prints it; None for SQL NULL."""
    return sha256(salt.bytes + (payload_json or "").encode()).digest()


def instant(at: datetime) -> str:
    """An instant as entries and seals write it: UTC, always six digits of a second."""
    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def read(connection: Connection, *, first: int, last: int) -> list[SealedEvent]:
    """What stands at these positions, in order; a position that is gone is left out."""
    with pinned(connection) as cursor:
        cursor.execute(load("workledger.log", "sealed_events"), (first, last), binary=True)
        return [SealedEvent(*row) for row in cursor.fetchall()]
