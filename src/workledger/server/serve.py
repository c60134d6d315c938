"""Serving the dashboard: on loopback, or anywhere to those who have the token."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
import threading
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI

from workledger.errors import ConfigurationError
from workledger.postgres.pool import ConnectionPool
from workledger.sdk.ledger import Ledger
from workledger.server.app import create_app

__all__ = ["DashboardServer", "is_loopback", "read_url", "serve"]

logger = logging.getLogger(__name__)

_STOP_S = 3


class DashboardServer:
    """Serves an application in a thread of its own, from `start()` to `stop()`.

    `host` must be loopback unless the application asks for a token. Port 0 takes a free one; `url` says which.
    """

    def __init__(self, app: FastAPI, host: str = "127.0.0.1", port: int = 8321) -> None:
        if not is_loopback(host) and not app.state.needs_token:
            raise ConfigurationError(
                f"the dashboard listens on {host!r} only with a token; without one, use 127.0.0.1",
                setting="dashboard_url",
            )
        self._app = app
        self._host = host
        self._port = port
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None

    def start(self) -> str:
        """Listen and return the URL; raises `ConfigurationError` when the address cannot be had."""
        self._socket = _listen(self._host, self._port)
        self._port = self._socket.getsockname()[1]
        self._server = uvicorn.Server(_quiet(self._app))
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="workledger-dashboard", daemon=True
        )
        self._thread.start()
        logger.info("dashboard.started url=%s", self.url)
        return self.url

    @property
    def url(self) -> str:
        """Where the dashboard is."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def is_alive(self) -> bool:
        """Say whether it serves."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """Let what is being answered finish, for a few seconds, and stop; idempotent."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_STOP_S + 2)
        if self._socket is not None:
            self._socket.close()
        self._server = self._thread = self._socket = None

    def __enter__(self) -> str:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def serve(source: Ledger | ConnectionPool, url: str = "http://127.0.0.1:8321", *, token: str | None = None) -> None:
    """Serve the dashboard at a URL until the process is told to stop (SIGINT, SIGTERM). For the main thread."""
    host, port = read_url(url)
    told = threading.Event()

    def tell(_number: int, _frame: object) -> None:
        told.set()

    before = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with DashboardServer(create_app(source, token=token), host, port):
            told.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def read_url(url: str) -> tuple[str, int]:
    """Host and port of an `http://HOST:PORT` setting."""
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if parts.scheme != "http" or not host or parts.path not in {"", "/"}:
        raise ConfigurationError(
            f"dashboard_url {url!r} is not of the form http://HOST:PORT", setting="dashboard_url", value=url
        )
    return host, 8321 if port is None else port


def is_loopback(host: str) -> bool:
    """Say whether an address can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return _bound(socket.socket(family, kind), address)
    except OSError as error:
        raise ConfigurationError(
            f"the dashboard cannot listen on {host}:{port}: {error.strerror or error}. Choose another dashboard_url",
            setting="dashboard_url",
            value=f"http://{host}:{port}",
        ) from error


def _bound(listening: socket.socket, address: Any) -> socket.socket:
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError:
        listening.close()
        raise
    return listening


def _quiet(app: FastAPI) -> uvicorn.Config:
    """Uvicorn without logs of its own (a token may stand in an address), trusting no proxy's headers."""
    return uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        loop="asyncio",
        http="h11",
        timeout_graceful_shutdown=_STOP_S,
    )
