"""Stored payloads that nothing refers to any more: finding them, and removing them under a lock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, LiteralString

import psycopg

from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = ["delete", "is_busy", "lock_part", "newly_used", "old_payloads", "storage", "used"]

_FETCH: Final = 10_000


def storage(connection: Connection) -> tuple[int, int]:
    """About how many values are stored by digest, and the bytes they take with their index."""
    ((payloads, size_bytes),) = _fetch(connection, "payload_storage", ())
    return payloads, size_bytes


def old_payloads(connection: Connection, *, after: str, min_age_s: float, limit: int) -> dict[str, int]:
    """Digests (hex) and stored bytes of payloads of an age, in the order of the digests, one page after a digest."""
    return dict(_fetch(connection, "old_payloads", (bytes.fromhex(after), min_age_s, limit)))


def used(connection: Connection, *, first: str, last: str) -> Iterator[str]:
    """The digests from `first` to `last` that events and state rows refer to; reads all of them, in batches."""
    with (
        translate_errors(),
        connection.transaction(),
        psycopg.RawServerCursor(connection, "workledger_used_payloads") as cursor,
    ):
        cursor.execute(load("workledger.operational", "used_payloads"), (first, last))
        while rows := cursor.fetchmany(_FETCH):
            yield from (digest for (digest,) in rows)


def newly_used(connection: Connection, *, after_position: int) -> tuple[int, set[str]]:
    """The head of the log, and the digests that events committed after a look at `after_position` refer to."""
    rows = _fetch(connection, "newly_used_payloads", (after_position,))
    return rows[0][0], {digest for _, digest in rows if digest is not None}


def lock_part(connection: Connection, part: int, *, timeout_ms: int) -> None:
    """Keep everybody from storing payloads of a part of the digests until the transaction ends.

    The driver's error when it takes too long is one that `is_busy` knows.
    """
    with psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", "lock_payloads"), (part, str(timeout_ms)))


def is_busy(error: psycopg.Error) -> bool:
    """Say whether a lock could not be had in time."""
    return isinstance(error, psycopg.errors.LockNotAvailable)


def delete(connection: Connection, digests: Sequence[str], *, min_age_s: float) -> list[int]:
    """Remove payloads of an age, under the lock on their part; the stored bytes of each that was removed."""
    parameters = ([bytes.fromhex(digest) for digest in digests], min_age_s)
    return [size_bytes for (size_bytes,) in _fetch(connection, "delete_payloads", parameters)]


def _fetch(connection: Connection, name: LiteralString, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", name), parameters)
        return cursor.fetchall()
