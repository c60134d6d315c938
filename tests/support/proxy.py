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
        self._dropping = threading.Event()
        self._refusing = threading.Event()
        self._stalling = threading.Event()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        port = self._listener.getsockname()[1]
        parts = {**self._target, "host": "127.0.0.1", "port": port, "sslmode": "disable", "gssencmode": "disable"}
        parts.pop("hostaddr", None)
        return make_conninfo(**parts)

    def drop_answers(self) -> None:
        """Let requests through, swallow the answer, then cut the connection."""
        self._dropping.set()

    def refuse(self) -> None:
        """Cut every connection and take no new ones."""
        self._refusing.set()

    def stall(self) -> None:
        """Keep every connection, and pass nothing on: what a server that stands still looks like."""
        self._stalling.set()

    def heal(self) -> None:
        self._dropping.clear()
        self._refusing.clear()
        self._stalling.clear()

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def _start(self, target, *args) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

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
            self._start(self._serve, client)

    def _connect(self) -> socket.socket:
        host, port = str(self._target.get("host", "127.0.0.1")), self._target.get("port", "5432")
        if host.startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{host}/.s.PGSQL.{port}")
            return server
        return socket.create_connection((host, int(port)))

    def _serve(self, client: socket.socket) -> None:
        with client, self._connect() as server, suppress(OSError):
            while not self._closing.is_set() and not self._refusing.is_set():
                if self._stalling.is_set():
                    self._closing.wait(0.02)
                    continue
                ready, _, _ = select.select([client, server], [], [], 0.05)
                if client in ready and not self._pass(client, server):
                    return
                if server in ready:
                    if self._dropping.is_set():
                        server.recv(65536)
                        return
                    if not self._pass(server, client):
                        return

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket) -> bool:
        data = source.recv(65536)
        if data:
            target.sendall(data)
        return bool(data)
