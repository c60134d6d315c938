"""A bound on how long a connection may stay without an answer."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final

import psycopg

from workledger.postgres.connection import Connection
from workledger.postgres.forks import forget_after_fork

__all__ = ["Deadline"]

_NEVER: Final = float("inf")
_LOOKS: Final = 4


class Deadline:
    """Cuts the connection of one user at a time when what it waits for takes longer than `limit_s` (or a quarter more).

    A time-out of the server's own does not help against a server that stands still, and a blocking call of the driver
    ends for nothing but its connection's end. So a thread looks on from beside, as long as there is something to see.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        #: Whether the last thing waited for took too long.
        self.has_passed = False
        self.forget_parent()
        forget_after_fork(self)

    def forget_parent(self) -> None:
        """In a forked child: the thread is not here."""
        self._lock = threading.Lock()
        self._until_s = _NEVER
        self._connection: Connection | None = None
        self._is_watched = False

    @contextmanager
    def over(self, connection: Connection) -> Generator[None]:
        """Bound whatever is done in this block."""
        with self._lock:
            self.has_passed = False
            self._connection = connection
            self._until_s = time.monotonic() + self.limit_s
            if not self._is_watched:
                self._start()
        try:
            yield
        finally:
            with self._lock:
                self._until_s = _NEVER
                self._connection = None

    def _start(self) -> None:
        thread = threading.Thread(target=self._watch, name="workledger-deadline", daemon=True)
        with suppress(RuntimeError):  # the interpreter is ending and starts no more threads
            thread.start()
            self._is_watched = True

    def _watch(self) -> None:
        quiet = 0
        while quiet < _LOOKS:
            time.sleep(self.limit_s / _LOOKS)
            with self._lock:
                quiet = quiet + 1 if self._connection is None else 0
                if time.monotonic() >= self._until_s and self._connection is not None:
                    self.has_passed = True
                    self._until_s = _NEVER
                    _cut(self._connection)
                if quiet == _LOOKS:
                    self._is_watched = False


def _cut(connection: Connection) -> None:
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)
