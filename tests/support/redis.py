"""Redis servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from support.processes import free_port, running
from support.requirements import require_program

__all__ = ["debian_redis", "flush"]


@contextmanager
def debian_redis(directory: Path) -> Iterator[str]:
    """Run Debian's redis-server in `directory`, with an append-only file, on a free port."""
    program = require_program("redis-server", "redis-server")
    directory.mkdir(parents=True)
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    argv = (
        program,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        directory,
        "--appendonly",
        "yes",
        "--save",
        "",
    )
    with running(argv, directory=directory, is_ready=lambda: _answers(url)):
        yield url


def flush(url: str) -> None:
    """Empty a server, its functions and its consumers' connections included."""
    with redis.Redis.from_url(url) as client:
        client.flushall()


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
