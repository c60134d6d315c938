"""The arrow from the log to somebody who trusts nobody: a proof that one event is in it, unaltered.

A proof is a JSON document that stands for itself: docs/how-to/prove-an-event.md has the script that checks it, which
knows nothing of Workledger.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from workledger.errors import InvalidInput, NotFound, StoreCorrupted
from workledger.flows.seal import checkpoint_note
from workledger.log import digests, seal
from workledger.log.archive_reads import sealed_events
from workledger.log.digests import SealedEvent
from workledger.log.merkle import HASH_BYTES, inclusion_path, root_from_path
from workledger.log.seal import Seal
from workledger.log.seal_keys import listed_keys
from workledger.log.seal_notes import Checkpoint, parse_checkpoint, parse_note
from workledger.postgres.connection import Connection

__all__ = ["FORMAT", "position_of", "prove"]

FORMAT: Final = "workledger-proof/1"


def prove(connection: Connection, position: int, *, checkpoint: str | None = None) -> dict[str, Any]:
    """A proof that the event at a position is in the log that a checkpoint was signed for.

    `checkpoint` is a signed note that was kept; by default it is that of the event's own seal, or of the first one
    after it that is signed. Raises `NotFound` when the position is not sealed or nothing is signed, and
    `StoreCorrupted` when the event is not what was sealed: then there is nothing to prove.
    """
    one = seal.seal_of(connection, position)
    if one is None:
        raise NotFound(
            f"position {position} is not sealed yet; `workledger seals make` seals everything up to the head",
            entity_type="seal",
            entity_id=str(position),
        )
    event = _sealed_event(connection, one, position)
    note = _note(connection, one) if checkpoint is None else checkpoint
    hashes = _hashes(connection, one, parse_checkpoint(parse_note(note).text))
    return {
        "format": FORMAT,
        "event": event.envelope,
        "payload": None if event.erased else event.payload_json or "",
        "salt": None if event.erased or event.salt is None else event.salt.hex,
        "event_path": [node.hex() for node in inclusion_path(one.leaves, position - one.first_position)],
        "seal": one.body,
        "seal_path": [node.hex() for node in inclusion_path(hashes, one.number - 1)],
        "checkpoint": note,
        "keys": [listed.key.verifier_key for listed in listed_keys(connection)],
    }


def position_of(connection: Connection, event: str) -> int:
    """The position of an event that is named by its id or by its position; raises `NotFound`."""
    if event.isdigit():
        return int(event)
    try:
        event_id = uuid.UUID(event)
    except ValueError:
        raise InvalidInput(
            f"{event!r} names no event; give the id of an event (a UUID) or its position in the log",
            field="event",
            value=event,
            limit="UUID or position",
        ) from None
    position = seal.position_of(connection, event_id)
    if position is None:
        raise NotFound(f"event {event_id} has no position in the log", entity_type="event", entity_id=str(event_id))
    return position


def _sealed_event(connection: Connection, one: Seal, position: int) -> SealedEvent:
    at = (position - one.first_position) * HASH_BYTES
    events = sealed_events(connection, digests.read(connection, first=position, last=position))
    if len(events) != 1 or not events[0].is_there or events[0].leaf != one.leaves[at : at + HASH_BYTES]:
        raise StoreCorrupted(
            f"what stands at position {position} is not what was sealed; `workledger verify --seals` says more",
            location=f"event_positions[{position}]",
        )
    return events[0]


def _note(connection: Connection, one: Seal) -> str:
    signed = one if one.signature is not None else seal.first_signed(connection, after=one.number)
    note = None if signed is None else checkpoint_note(connection, signed)
    if note is None:
        raise NotFound(
            f"seal {one.number} is not signed, nor is any after it; make a key with `workledger keys new`, "
            "and the next seal will prove this one too",
            entity_type="seal",
            entity_id=str(one.number),
        )
    return note


def _hashes(connection: Connection, one: Seal, checkpoint: Checkpoint) -> bytes:
    """The hashes of the seals that a checkpoint covers, after checking that it does."""
    if checkpoint.origin != one.origin or checkpoint.size < one.number:
        raise InvalidInput(
            f"the checkpoint is of the first {checkpoint.size} seals of {checkpoint.origin!r}; "
            f"this is seal {one.number} of {one.origin!r}",
            field="checkpoint",
            value=checkpoint.size,
            limit=one.number,
        )
    hashes = seal.hashes(connection, upto=checkpoint.size)
    path = inclusion_path(hashes, one.number - 1)
    root = root_from_path(one.body_hash, index=one.number - 1, size=checkpoint.size, path=path)
    if root != checkpoint.root:
        raise StoreCorrupted(
            f"the seals are not those that the checkpoint of {checkpoint.size} seals was signed for; "
            "`workledger verify --seals` says more",
            location=f"seals[1 to {checkpoint.size}]",
        )
    return hashes
