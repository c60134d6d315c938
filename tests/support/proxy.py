"""A TCP proxy before PostgreSQL that can lose answers or cut connections, as networks do."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from typing import Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo


class Proxy:
    """Listens on loopback and passes bytes on, until told otherwise."""

    def __init__(self, url: str) -> None:
        self._target = conninfo_to_dict(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._to_drop = 0
        #: How many answers were lost so far.
        self.lost = 0
        self._refusing = threading.Event()
        self._stalling = threading.Event()
        self._closing = threading.Event()
        self._dropping = threading.Lock()
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._serving: list[threading.Thread] = []

    @property
    def url(self) -> str:
        port = self._listener.getsockname()[1]
        parts = {**self._target, "host": "127.0.0.1", "port": port, "sslmode": "disable", "gssencmode": "disable"}
        parts.pop("hostaddr", None)
        return make_conninfo(**parts)

    def drop_answers(self, count: int) -> None:
        """Let requests through, swallow the answer, then cut the connection; for so many answers."""
        self._to_drop = count

    def refuse(self) -> None:
        """Cut every connection and take no new ones. Nothing passes any more once this returns."""
        self._refusing.set()
        for thread in self._serving:
            thread.join(30)

    def stall(self) -> None:
        """Keep every connection, and pass nothing on: what a server that stands still looks like."""
        self._stalling.set()

    def heal(self) -> None:
        self._to_drop = 0
        self._refusing.clear()
        self._stalling.clear()

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for thread in (self._accepting, *self._serving):
            thread.join(30)
        self._listener.close()  # not before: its number may be another file's while somebody waits on it

    def _accept(self) -> None:
        self._listener.settimeout(0.1)
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except (TimeoutError, OSError):
                continue
            if self._refusing.is_set():
                client.close()
                continue
            serving = threading.Thread(target=self._serve, args=(client,), daemon=True)
            serving.start()
            self._serving.append(serving)

    def _connect(self) -> socket.socket:
        host, port = str(self._target.get("host", "127.0.0.1")), self._target.get("port", "5432")
        if host.startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{host}/.s.PGSQL.{port}")
            return server
        return socket.create_connection((host, int(port)))

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), self._connect() as server:
            while not self._closing.is_set() and not self._refusing.is_set():
                if self._stalling.is_set():
                    self._closing.wait(0.02)
                    continue
                ready, _, _ = select.select([client, server], [], [], 0.05)
                if client in ready and not self._pass(client, server):
                    return
                if server in ready and (self._drops() or not self._pass(server, client)):
                    return

    def _drops(self) -> bool:
        """Whether the answer that is there is one of those to be lost."""
        with self._dropping:
            if self._to_drop:
                self._to_drop -= 1
                self.lost += 1
                return True
            return False

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket) -> bool:
        data = source.recv(65536)
        if data:
            target.sendall(data)
        return bool(data)
