"""The sequencer: gives committed events their dense positions."""

from __future__ import annotations

from typing import Final

import psycopg

from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = ["channel", "sequence", "sequence_batch"]

BATCH: Final = 10_000


def channel(schema: str) -> str:
    """The LISTEN channel of a project: one notification per sequenced batch, its payload the new head."""
    return f"workledger_{schema}"[:63]


def sequence(connection: Connection, *, schema: str, notify: bool = True) -> int:
    """Give every visible event a position and return how many got one.

    Any process may call this at any time; copies queue on one row lock.
    """
    total = 0
    while placed := sequence_batch(connection, schema=schema, notify=notify):
        total += placed
        if placed < BATCH:
            break
    return total


def sequence_batch(connection: Connection, *, schema: str, limit: int = BATCH, notify: bool = True) -> int:
    """Sequence at most `limit` events in one transaction; returns how many."""
    with translate_errors(), connection.transaction(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.log", "lock_head"))
        cursor.execute(load("workledger.log", "sequence"), (limit,))
        row = cursor.fetchone()
        if row is None:
            return 0
        placed, head = row
        if notify:
            cursor.execute(load("workledger.log", "notify"), (channel(schema), str(head)))
        return placed
