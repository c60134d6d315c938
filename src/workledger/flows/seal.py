"""The arrow from the log to its seals, and from the seals to a place outside the database."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from workledger.errors import ConfigurationError, StoreCorrupted
from workledger.log import seal
from workledger.log.merkle import HASH_BYTES
from workledger.log.seal import Seal
from workledger.log.seal_checkpoints import CheckpointStore, FolderCheckpoints
from workledger.log.seal_keys import list_key, listed_keys, log_name
from workledger.log.seal_notes import SealKey, make_note
from workledger.log.seal_report import SealReport
from workledger.log.seal_verify import verify_seals
from workledger.postgres.connection import Connection, translate_errors

if TYPE_CHECKING:
    from workledger.log.keys import KeyFolder, Signer

__all__ = [
    "MAX_AGE",
    "MAX_EVENTS",
    "FolderCheckpoints",
    "SealReport",
    "checkpoint_note",
    "make_key",
    "rotate_key",
    "seal_all",
    "seal_once",
    "verify_seals",
    "write_checkpoint",
]

logger = logging.getLogger(__name__)

#: A seal is made of so many events at most: their digests are read at once.
MAX_EVENTS: Final = 8192
#: Fewer events are sealed when the oldest of them has waited so long.
MAX_AGE: Final = timedelta(seconds=60)


def seal_once(
    connection: Connection,
    *,
    schema: str,
    signer: Signer | None = None,
    max_events: int = MAX_EVENTS,
    max_age: timedelta = MAX_AGE,
) -> Seal | None:
    """Seal the positions that wait, `max_events` at most, when there are so many or the oldest has waited `max_age`.

    Returns the seal; None when nothing is due, or while another process seals. Without a signer seals are chained but
    not signed; once one is signed, all that follow must be, and `ConfigurationError` is raised where no key is.
    Raises `StoreCorrupted` when a position has no event.
    """
    with translate_errors(), connection.transaction():
        if not seal.take_turn(connection):
            return None
        before = seal.newest(connection)
        after = 0 if before is None else before.last_position
        waiting = seal.unsealed(connection, after=after)
        size = min(waiting.size, max_events)
        ripe = waiting.oldest_at is not None and waiting.now - waiting.oldest_at >= max_age
        if size < 1 or (size < max_events and not ripe):
            return None
        if before is not None and before.key_id is not None and signer is None:
            raise ConfigurationError(
                f"seal {before.number} is signed, and no key here can sign the next one; copy the secret key "
                f"{before.key_id} into the keys folder, or make one with `workledger keys new`",
                setting="keys",
                value=before.key_id,
            )
        leaves = _leaves(connection, first=after + 1, last=after + size)
        made = seal.followed_by(
            before, origin=log_name(connection, schema=schema), leaves=leaves, sealed_at=waiting.now
        )
        made = _signed(made, signer)
        seal.add(connection, made)
    logger.debug("seal.made number=%d last_position=%d key=%s", made.number, made.last_position, made.key_id)
    return made


def seal_all(connection: Connection, *, schema: str, signer: Signer | None = None) -> int:
    """Seal everything that has a position, and return how many seals that took."""
    made = 0
    while seal_once(connection, schema=schema, signer=signer, max_age=timedelta(0)) is not None:
        made += 1
    return made


def _leaves(connection: Connection, *, first: int, last: int) -> bytes:
    leaves = seal.leaves_of(connection, first=first, last=last)
    if len(leaves) != HASH_BYTES * (last - first + 1):
        raise StoreCorrupted(
            f"positions {first} to {last} of the log hold {len(leaves) // HASH_BYTES} events; `workledger verify` "
            "says what is wrong. Nothing is sealed until it is put right",
            location=f"event_positions {first}..{last}",
        )
    return leaves


def _signed(made: Seal, signer: Signer | None) -> Seal:
    if signer is None:
        return made
    return msgspec.structs.replace(made, key_id=signer.key.key_id, signature=signer.sign(made.checkpoint.text))


# -- keys -------------------------------------------------------------------------------------------------------


def make_key(connection: Connection, *, schema: str, folder: KeyFolder) -> SealKey:
    """Make a key that may sign this log: the secret in the folder, the public side listed in the database."""
    key = folder.make(log_name(connection, schema=schema)).key
    with connection.transaction():
        list_key(connection, key)
    return key


def rotate_key(connection: Connection, *, schema: str, folder: KeyFolder) -> SealKey:
    """Make a key and have the active one sign that it comes after it; the old secret is removed.

    Raises `ConfigurationError` when there is no active key here.
    """
    active = folder.active_signer(connection)
    if active is None:
        raise ConfigurationError(
            "no key here signs this log; make one with `workledger keys new`", setting="keys", value=None
        )
    made = folder.make(log_name(connection, schema=schema)).key
    with connection.transaction():
        list_key(connection, made, endorsed_by=active.key.key_id, endorsement=active.endorse(made))
    folder.forget_secret(active.key.key_id)
    return made


# -- checkpoints ------------------------------------------------------------------------------------------------


def checkpoint_note(connection: Connection, one: Seal) -> str | None:
    """The signed note of a seal; None when it is not signed."""
    keys = {listed.key.key_id: listed.key for listed in listed_keys(connection)}
    if one.key_id is None or one.signature is None:
        return None
    return make_note(one.checkpoint.text, key=keys[one.key_id], signature=one.signature)


def write_checkpoint(connection: Connection, store: CheckpointStore) -> str | None:
    """Keep the newest seal's checkpoint outside the database, under the name of its last position.

    Returns the name; None when there is no signed seal. A checkpoint that is there already stays as it is; raises
    `StoreCorrupted` when it says something else.
    """
    newest = seal.newest(connection)
    note = None if newest is None else checkpoint_note(connection, newest)
    if newest is None or note is None:
        return None
    name = f"{newest.last_position:020d}.checkpoint"
    store.keep(name, note)
    return name
