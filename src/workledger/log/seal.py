"""Seals: what a range of the log was, in one hash that is chained to the one before.

The body of a seal is the canonical JSON of its own columns. Its hash is the leaf hash of the body: it stands in the
next seal as `previous`, and it is a leaf of the tree over all seals, whose root a key signs as a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg

from workledger.log.digests import instant
from workledger.log.merkle import HASH_BYTES, Peaks, leaf_hash, tree_root
from workledger.log.seal_notes import Checkpoint
from workledger.log.seal_plans import pinned
from workledger.model.canonical import canonicalise
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = [
    "FORMAT",
    "NOTHING_BEFORE",
    "Seal",
    "Unsealed",
    "add",
    "first_signed",
    "followed_by",
    "hashes",
    "iterate",
    "leaves_of",
    "newest",
    "position_of",
    "seal_of",
    "take_turn",
    "unsealed",
]

FORMAT: Final = "workledger-seal/1"
#: What the first seal has in the place of the hash of the one before.
NOTHING_BEFORE: Final = bytes(HASH_BYTES)


class Seal(msgspec.Struct, frozen=True):
    """One seal: its row in `seals`, column by column."""

    number: int
    origin: str
    first_position: int
    last_position: int
    root: bytes
    previous: bytes
    sealed_at: datetime
    hash: bytes
    tree_root: bytes
    peaks: bytes
    key_id: str | None
    signature: bytes | None
    leaves: bytes

    @property
    def size(self) -> int:
        """How many events it seals."""
        return self.last_position - self.first_position + 1

    @property
    def body(self) -> dict[str, Any]:
        """What the hash is of."""
        return {
            "first_position": self.first_position,
            "format": FORMAT,
            "last_position": self.last_position,
            "number": self.number,
            "origin": self.origin,
            "previous": self.previous.hex(),
            "root": self.root.hex(),
            "sealed_at": instant(self.sealed_at),
        }

    @property
    def body_hash(self) -> bytes:
        """The hash that the body has."""
        return leaf_hash(canonicalise(self.body))

    @property
    def checkpoint(self) -> Checkpoint:
        """What is signed: the tree over the seals up to this one."""
        return Checkpoint(origin=self.origin, size=self.number, root=self.tree_root)


class Unsealed(msgspec.Struct, frozen=True):
    """What waits for a seal: how many positions, since when, and the server's clock."""

    size: int
    oldest_at: datetime | None
    now: datetime


def followed_by(before: Seal | None, *, origin: str, leaves: bytes, sealed_at: datetime) -> Seal:
    """The seal that comes after another one (or first), not signed yet."""
    number, position = (1, 1) if before is None else (before.number + 1, before.last_position + 1)
    draft = Seal(
        number=number,
        origin=origin,
        first_position=position,
        last_position=position + len(leaves) // HASH_BYTES - 1,
        root=tree_root(leaves),
        previous=NOTHING_BEFORE if before is None else before.hash,
        sealed_at=sealed_at,
        hash=b"",
        tree_root=b"",
        peaks=b"",
        key_id=None,
        signature=None,
        leaves=leaves,
    )
    peaks = Peaks(size=number - 1, data=b"" if before is None else before.peaks)
    peaks.append(draft.body_hash)
    return msgspec.structs.replace(draft, hash=draft.body_hash, tree_root=peaks.root(), peaks=peaks.data)


def take_turn(connection: Connection) -> bool:
    """Say whether this transaction may seal; False while another one does."""
    ((mine,),) = _fetch(connection, "take_seal_turn", ())
    return mine


def newest(connection: Connection) -> Seal | None:
    """The last seal, without its leaves."""
    rows = _fetch(connection, "newest_seal", ())
    return Seal(*rows[0]) if rows else None


def seal_of(connection: Connection, position: int) -> Seal | None:
    """The seal that holds a position."""
    rows = _fetch(connection, "seal_of", (position,))
    return Seal(*rows[0]) if rows else None


def first_signed(connection: Connection, *, after: int) -> Seal | None:
    """The first signed seal after a number, without its leaves."""
    rows = _fetch(connection, "first_signed_seal", (after,))
    return Seal(*rows[0]) if rows else None


def hashes(connection: Connection, *, upto: int) -> bytes:
    """The hashes of the seals up to a number, in order, 32 bytes each."""
    ((found,),) = _fetch(connection, "seal_hashes", (upto,))
    return found


def position_of(connection: Connection, event_id: UUID) -> int | None:
    """The position of an event."""
    rows = _fetch(connection, "position_of_event", (event_id,))
    return rows[0][0] if rows else None


def iterate(connection: Connection, *, after: int = 0, page: int = 16) -> Iterator[Seal]:
    """Every seal after a number, in order, a page in memory at a time."""
    while rows := _fetch(connection, "seals", (after, page)):
        for row in rows:
            yield Seal(*row)
        after = rows[-1][0]


def unsealed(connection: Connection, *, after: int) -> Unsealed:
    """What waits for a seal after a position."""
    ((size, oldest_at, now),) = _fetch(connection, "unsealed", (after,))
    return Unsealed(size, oldest_at, now)


def add(connection: Connection, seal: Seal) -> None:
    """Write a seal, in the transaction at hand; raises `Conflict` when its number or positions are taken."""
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.log", "add_seal"), msgspec.structs.astuple(seal))


def leaves_of(connection: Connection, *, first: int, last: int, meanwhile: Callable[[], None] | None = None) -> bytes:
    """The digests of the events at these positions, made by PostgreSQL; those of events that are gone are left out.

    With `meanwhile`, PostgreSQL may put several processes to it, and that is done here until they are through.
    """
    with pinned(connection) as cursor:
        if meanwhile is not None:
            cursor.execute(load("workledger.log", "allow_helpers"))
        # A plan that is kept would not notice that it may have helpers now.
        cursor.execute(load("workledger.log", "leaves"), (first, last), binary=True, prepare=meanwhile is None)
        if meanwhile is not None:
            meanwhile()
        ((leaves,),) = cursor.fetchall()
        return leaves


def _fetch(connection: Connection, name: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.log", name), parameters, binary=True)
        return cursor.fetchall()
