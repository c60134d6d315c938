"""Server processes that belong to the test session and end with it."""

from __future__ import annotations

import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from support.waiting import wait_until

__all__ = ["answer_of", "free_port", "kill_all_in", "new_base", "responds", "running"]


_ROOM_BYTES = 8 << 30
#: Below what Linux gives to those that connect (`ip_local_port_range`).
_SERVER_PORTS = (10_000, 32_000)
_given: set[int] = set()


def answer_of(process: subprocess.Popen[str]) -> str:
    """What a process said after the lines that were read. `communicate` would leave out what came together with them."""
    process.wait(timeout=120)
    assert process.stdout is not None
    with process.stdout:
        return process.stdout.read()


def new_base() -> Path:
    """Make a directory that servers running as other users can pass through, which pytest's own is not."""
    base = Path(tempfile.mkdtemp(prefix="workledger-tests-", dir=_in_memory()))
    base.chmod(0o711)
    return base


def _in_memory() -> str | None:
    """A place in memory with room, where fsync costs nothing: tests kill processes, not machines."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ROOM_BYTES:
        return str(memory)
    return None


def free_port() -> int:
    """Give a port that nobody listens on, and that nobody else is given: no other worker, and no outgoing connection."""
    first, last = _SERVER_PORTS
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    own = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % workers
    while True:
        port = random.SystemRandom().randrange(first + own, last, workers)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


def responds(url: str) -> bool:
    """Tell whether a server answers at `url` with success."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return 200 <= response.status < 300
    except (urllib.error.URLError, http.client.HTTPException, OSError):
        return False


@contextmanager
def running(
    argv: Sequence[str | Path], *, directory: Path, is_ready: Callable[[], object], env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in `directory` until the block ends; its output is in `directory/output.log`."""
    with (directory / "output.log").open("ab") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=directory, env=env)
    try:
        wait_until(lambda: is_ready() or process.poll() is not None, timeout_s=120)
        if process.poll() is not None:
            log = (directory / "output.log").read_text(errors="replace")
            raise RuntimeError(f"{argv[0]} ended with {process.returncode}:\n{log[-2000:]}")
        yield process
    finally:
        process.kill()
        process.wait(60)


def kill_all_in(base: Path) -> None:
    """Kill whatever names a file below `base` in its command line: servers of a worker that died."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{base}/".encode() in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                os.kill(int(entry.name), signal.SIGKILL)
