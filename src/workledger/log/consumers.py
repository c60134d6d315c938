"""Named readers of the log and how far they have come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import psycopg

from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = ["Consumer", "consumers", "position_of", "save"]


@dataclass(frozen=True, slots=True)
class Consumer:
    """A named reader: its last position, and how many positions it is behind the head."""

    name: str
    position: int
    lag: int
    updated_at: datetime
    details: dict[str, Any]


def consumers(connection: Connection) -> list[Consumer]:
    """Every named reader, by name."""
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.log", "consumers"))
        return [Consumer(*row) for row in cursor.fetchall()]


def position_of(connection: Connection, name: str) -> int:
    """The last position a reader has dealt with; 0 for one that never ran."""
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.log", "consumer_position"), (name,))
        row = cursor.fetchone()
        return row[0] if row else 0


def save(connection: Connection, name: str, position: int, *, details: dict[str, Any] | None = None) -> bool:
    """Move a reader's cursor forward, in the transaction at hand; False when it already stands further on."""
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.log", "save_consumer"), (name, position, orjson.dumps(details or {}).decode()))
        return cursor.fetchone() is not None
