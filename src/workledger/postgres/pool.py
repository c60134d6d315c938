"""A few connections, lent out one at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import psycopg

from workledger.postgres.connection import Connection
from workledger.postgres.forks import forget_after_fork

__all__ = ["ConnectionPool"]


class ConnectionPool:
    """Lends connections to threads and keeps idle ones; opens one when none is idle.

    A connection that broke is dropped. After a fork the child starts empty and leaves the parent's alone.
    """

    def __init__(self, connect: Callable[[], Connection], *, keep: int = 4) -> None:
        self._connect = connect
        self._keep = keep
        self._idle: list[Connection] = []
        self._inherited: list[Connection] = []
        self._lock = threading.Lock()
        self._closed = False
        forget_after_fork(self)

    def forget_parent(self) -> None:
        """In a forked child: keep the parent's connections, untouched, and begin with none."""
        self._inherited += self._idle
        self._idle = []
        self._lock = threading.Lock()

    @contextmanager
    def connection(self) -> Generator[Connection]:
        """Lend a connection for a block; one that a server restart broke while idle is replaced once."""
        connection = self._take()
        try:
            yield connection
        finally:
            self._give_back(connection)

    def close(self) -> None:
        """Close the idle connections, and those that are lent when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> Connection:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            return self._connect()
        return connection if _alive(connection) else self._connect()

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            if not (self._closed or connection.closed or connection.broken) and len(self._idle) < self._keep:
                self._idle.append(connection)
                return
        connection.close()


def _alive(connection: Connection) -> bool:
    """Say whether the server still answers; one round trip, a few tens of microseconds."""
    try:
        connection.execute("SELECT 1")
    except psycopg.Error:
        connection.close()
        return False
    return True
