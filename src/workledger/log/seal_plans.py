"""Reading by position at the same price, whatever the size of the log."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import psycopg

from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = ["pinned"]


@contextmanager
def pinned(connection: Connection) -> Generator[psycopg.RawCursor[Any]]:
    """Give a cursor in a transaction in which the planner reads by position and nothing is compiled.

    The settings hold until the end of the outermost transaction.
    """
    with translate_errors(), connection.pipeline(), connection.transaction(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.log", "pin_plans"))
        yield cursor
