"""Who lands in a store: one process of a database at a time, by a lock that ends with its connection.

A store itself refuses the second of two writers, at the latest when that one wants to commit. The lock only spares
them the work that would be for nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress

import psycopg

from workledger.errors import WorkledgerError
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load
from workledger.training.store import TrainingStore

__all__ = ["landing_turn"]


@contextmanager
def landing_turn(connection: Connection, store: TrainingStore) -> Generator[bool]:
    """Hold the turn to land in a store; False when another connection has it.

    Behind PgBouncer no lock lasts longer than a transaction: everybody has the turn, and the store decides.
    """
    if connection.prepare_threshold is None:
        yield True
        return
    if not _ask(connection, "take_landing_turn", store):
        yield False
        return
    try:
        yield True
    finally:
        # Where the connection is gone, so is the lock.
        with suppress(WorkledgerError):
            _ask(connection, "end_landing_turn", store)


def _ask(connection: Connection, name: str, store: TrainingStore) -> bool:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.flows", name), (store.name,))
        ((answer,),) = cursor.fetchall()
    return answer
