"""A PostgreSQL of our own, for a project that has none: made, started, found again and stopped by Workledger.

It listens on a unix socket alone. The kernel says who calls, and only the user who owns the data, the user
the server runs as, and root get in: there is no password to leak.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from workledger.errors import ConfigurationError, DatabaseUnavailable
from workledger.postgres._install import can_reach, new_place, server_account
from workledger.postgres._process import exclusive, write_file
from workledger.postgres._server import Server

__all__ = ["EmbeddedPostgres"]

_LOCK_TIMEOUT_S = 90.0


class EmbeddedPostgres:
    """One PostgreSQL server with its home in `data_dir`, shared by all processes that name this directory.

    The server outlives the process that started it, so that the next command finds it running; `stop()` ends
    it. Whatever is killed at whatever moment, the next `ensure_running()` puts right. Used as a context
    manager it gives the URL, and stops the server at the end.

    >>> url = EmbeddedPostgres(Path(".workledger/postgres")).ensure_running()
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.expanduser().absolute()

    def ensure_running(self) -> str:
        """Give the URL of the database `workledger`, after making and starting whatever is missing.

        Takes well under a millisecond when the server runs, and about half a second the first time.

        Raises:
            ConfigurationError: the directory, its data or this user cannot be used.
            DatabaseUnavailable: the server does not start; the message has the end of its log.
        """
        with _explained(self.data_dir):
            server = self._found()
            if server is not None and server.is_ready():
                return server.url
            _make_home(self.data_dir)
            with exclusive(self.data_dir / "lock", timeout_s=_LOCK_TIMEOUT_S) as lock:
                server = self._found() or self._settle()
                server.prepare(lock)
                server.start()
                try:
                    server.ensure_database()
                except DatabaseUnavailable:
                    # One that was killed a moment before may have been ready until then.
                    if not server.has_ended(within_s=1.0):
                        raise
                    server.start()
                    server.ensure_database()
                return server.url

    def stop(self, *, timeout_s: float = 30.0) -> None:
        """Stop the server, rolling back what is open; does nothing when none runs.

        Raises:
            DatabaseUnavailable: some of its processes live on.
        """
        with _explained(self.data_dir):
            server = self._found()
            if server is None or not server.is_alive():
                return
            with exclusive(self.data_dir / "lock", timeout_s=_LOCK_TIMEOUT_S):
                server.stop(timeout_s=timeout_s)

    def delete(self) -> None:
        """Stop the server and remove its data."""
        self.stop()
        server = self._found()
        with _explained(self.data_dir):
            if server is not None:
                server.delete()
            if self.data_dir.exists():
                shutil.rmtree(self.data_dir)

    def is_running(self) -> bool:
        """Tell whether the server lives."""
        return self.pid is not None

    @property
    def pid(self) -> int | None:
        """The process id of the living postmaster."""
        with _explained(self.data_dir):
            server = self._found()
            return server.postmaster() if server is not None and server.is_alive() else None

    def __enter__(self) -> str:
        return self.ensure_running()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _found(self) -> Server | None:
        """Find what an earlier call made, if any."""
        location = self.data_dir / "location.json"
        if not location.exists():
            return Server(self.data_dir, self.data_dir) if (self.data_dir / "cluster").exists() else None
        place = Path(json.loads(location.read_text(encoding="utf-8"))["place"])
        if place.is_dir():
            return Server(self.data_dir, place)
        raise ConfigurationError(
            f"The database of {self.data_dir} was kept in {place}, which is gone: "
            f"restore it, or remove {self.data_dir} to begin with an empty one.",
            setting="data_dir",
            value=str(self.data_dir),
        )

    def _settle(self) -> Server:
        """Choose where a new cluster goes: into the directory itself, if the server's user can reach it."""
        account = server_account(self.data_dir / "cluster")
        if account.uid == os.geteuid() or can_reach(account, self.data_dir):
            return Server(self.data_dir, self.data_dir)
        project = re.sub(r"\W+", "-", self.data_dir.parent.name, flags=re.ASCII).strip("-")[:30]
        place = new_place(project or "database")
        write_file(self.data_dir / "location.json", json.dumps({"place": str(place)}))
        return Server(self.data_dir, place)


def _make_home(data_dir: Path) -> None:
    if data_dir.exists():
        return
    data_dir.mkdir(parents=True, exist_ok=True)
    # Root's server runs as another user, who has to pass through to the cluster.
    data_dir.chmod(0o700 if os.geteuid() else 0o711)


@contextmanager
def _explained(data_dir: Path) -> Generator[None]:
    """Turn what the operating system says into our errors."""
    try:
        yield
    except TimeoutError as error:
        raise DatabaseUnavailable(
            f"Another process has been starting or stopping the database in {data_dir} for too long "
            f"({error}): look for it, and end it if it hangs.",
            data_dir=data_dir,
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"The database directory {data_dir} cannot be used ({error}): run Workledger as the user who "
            "owns it, choose another directory, or set WORKLEDGER_DATABASE_URL.",
            setting="data_dir",
            value=str(data_dir),
        ) from error
