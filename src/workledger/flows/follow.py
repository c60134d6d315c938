"""Following the log: woken when it grows, and looking by oneself from time to time in any case."""

from __future__ import annotations

from psycopg import sql

from workledger.log.sequencer import channel
from workledger.postgres.connection import Connection, translate_errors

__all__ = ["listen", "wait"]


def listen(connection: Connection, *, schema: str) -> None:
    """Have this connection told when the log grows. Not behind PgBouncer in transaction mode, which drops LISTEN."""
    with translate_errors():
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel(schema))))


def wait(connection: Connection, *, timeout_s: float) -> bool:
    """Wait until the connection is told that the log has grown, at most `timeout_s`; True when it was told."""
    with translate_errors():
        return any(True for _ in connection.notifies(timeout=timeout_s, stop_after=1))
