"""Servers that outlive the process that started them: who may start one, does it live, how does it end.

A pid file lies after a crash: the number may belong to nobody, to a zombie or to somebody else. Here a lock
tells instead. A server is started holding the lock of its *lifeline* file, its children inherit it, and the
kernel lets go of it when the last of them is gone, whatever killed them.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "Account",
    "Lifeline",
    "eventually",
    "exclusive",
    "linked_dir",
    "log_tail",
    "remove_linked_dir",
    "socket_dir",
    "sync_directory",
    "write_file",
]

_SOCKET_PATH_BYTES = 103  # macOS; Linux takes 107
_LOG_LIMIT_BYTES = 8 << 20
_open_locks: set[int] = set()


def _drop_locks_after_fork() -> None:
    for descriptor in _open_locks:
        with suppress(OSError):
            os.close(descriptor)
    _open_locks.clear()


# A child forked while we hold a lock would hold it for as long as it lives.
os.register_at_fork(after_in_child=_drop_locks_after_fork)


@dataclass(frozen=True, slots=True)
class Account:
    """The operating system user that a server runs as."""

    name: str
    uid: int
    gid: int

    def as_subprocess_options(self) -> dict[str, Any]:
        """Give what `subprocess` needs to become this user, which is nothing when we are it already."""
        if self.uid == os.geteuid():
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


@contextmanager
def exclusive(path: Path, *, timeout_s: float) -> Generator[int]:
    """Hold the lock on `path`, for one thread of one process on this machine; gives its descriptor.

    Raises:
        TimeoutError: when another one holds it for longer than `timeout_s`.
    """
    with _opened(path) as descriptor:
        if not eventually(lambda: _try_lock(descriptor, fcntl.LOCK_EX), timeout_s=timeout_s):
            raise TimeoutError(f"{path} stayed locked for {timeout_s:g} s")
        try:
            yield descriptor
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)


@dataclass(frozen=True, slots=True)
class Lifeline:
    """The lock that a server and all its children hold, and how their command lines look."""

    path: Path
    command: re.Pattern[str]

    def is_held(self) -> bool:
        """Tell whether any process of the server lives."""
        try:
            with _opened(self.path, os.O_RDONLY) as descriptor:
                return not _try_lock(descriptor, fcntl.LOCK_SH)
        except FileNotFoundError:
            return False

    def is_released(self, *, within_s: float) -> bool:
        """Wait until no process of the server lives; False when some still do after `within_s`."""
        return eventually(lambda: not self.is_held(), timeout_s=within_s)

    def is_ours(self, pid: int) -> bool:
        """Tell whether `pid` is now a living process of this server, and not a zombie or a stranger."""
        return self.command.search(_command_line(pid)) is not None

    def processes(self) -> list[int]:
        """List the living processes of the server."""
        return [pid for pid in _pids() if self.is_ours(pid)]

    def start(self, argv: Sequence[str | Path], *, log: Path, account: Account) -> None:
        """Start the server detached from us, holding the lifeline; return before it is ready.

        It is nobody's child, so that it leaves no zombie in a program that runs on; it sees neither our
        terminal nor our environment, which may hold secrets.
        """
        _rotate(log)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            _belong_to_directory(output, log)
            with _opened(self.path) as lifeline:
                # Someone who asks whether the lock is held, holds it for an instant.
                if not eventually(lambda: _try_lock(lifeline, fcntl.LOCK_EX), timeout_s=5):
                    raise TimeoutError(f"{self.path} is held although its server was seen to be gone")
                _spawn(argv, keep=lifeline, output=output, account=account)
        finally:
            os.close(output)

    def end(self, pid: int | None, *, steps: Sequence[tuple[signal.Signals, float]]) -> bool:
        """End the server: each signal to `pid` with its patience in seconds, at last SIGKILL to all."""
        for number, patience_s in steps:
            if pid is None or self.is_released(within_s=0):
                break
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            if self.is_released(within_s=patience_s):
                break
        return self.is_released(within_s=0) or self.kill()

    def kill(self) -> bool:
        """Kill every process of the server; False when some live on or cannot be seen from here."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return self.is_released(within_s=5)


def eventually(condition: Callable[[], object], *, timeout_s: float) -> bool:
    """Ask again and again until `condition()` is true; False when it still is not after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.002
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.05)
    return True


def write_file(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Put `text` at `path`, whole or not at all, without following a link that somebody left there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            os.fchmod(descriptor, mode)
            _belong_to_directory(descriptor, path)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def log_tail(path: Path, *, lines: int = 15) -> str:
    """Give the last lines of a server's log, to be shown in an error."""
    try:
        text = path.read_bytes()[-16_384:].decode(errors="replace")
    except OSError as error:
        return f"({error})"
    return "\n".join(text.splitlines()[-lines:]) or "(empty)"


def _socket_fits(path: Path) -> bool:
    """Tell whether a unix socket can be at `path`, and be named in a URL and a configuration file.

    Servers and drivers give commas, quotes and spaces in such a path meanings of their own.
    """
    fits = len(os.fsencode(path)) <= _SOCKET_PATH_BYTES
    return fits and re.fullmatch(r"[\w/.+-]+", str(path), re.ASCII) is not None


def socket_dir(beside: Path, *, socket: str, owner: Account, tag: str) -> Path:
    """Make the directory of a server's socket, open to `owner` alone: `beside`, or somewhere short if need be.

    A short one is linked from `beside` and found again by its `tag`, so that a URL outlives a restart.
    """
    if _socket_fits(beside / socket):
        beside.mkdir(exist_ok=True)
        directory = beside
    else:
        directory = _short_dir(beside, owner=owner, tag=f"workledger-{tag}-")
    os.chown(directory, owner.uid, owner.gid)
    directory.chmod(0o700)
    return directory


def linked_dir(beside: Path) -> Path:
    """Give the directory that `socket_dir` made."""
    return beside.readlink() if beside.is_symlink() else beside


def remove_linked_dir(beside: Path) -> None:
    """Remove what `socket_dir` made somewhere short."""
    if beside.is_symlink():
        shutil.rmtree(beside.readlink(), ignore_errors=True)
        beside.unlink()


def _short_dir(link: Path, *, owner: Account, tag: str) -> Path:
    if link.is_symlink():
        known = link.readlink()
        with suppress(FileNotFoundError):
            found = known.lstat()
            # A copied project brings the link of the original, whose server may be running.
            if known.name.startswith(tag) and stat.S_ISDIR(found.st_mode) and found.st_uid == owner.uid:
                return known
        link.unlink()
    elif link.is_dir():
        shutil.rmtree(link)
    base = Path(tempfile.gettempdir())
    short = _socket_fits(base / f"{tag}12345678" / ".s.PGSQL.5432")
    made = Path(tempfile.mkdtemp(prefix=tag, dir=base if short else "/tmp"))  # noqa: S108 - a name nobody guesses
    link.symlink_to(made)
    return made


def sync_directory(directory: Path) -> None:
    """Make a rename in `directory` survive a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rotate(log: Path) -> None:
    """Keep one older log, so that a server that runs for years does not fill the disk with words."""
    with suppress(FileNotFoundError):
        if log.stat().st_size > _LOG_LIMIT_BYTES:
            log.replace(log.with_name(f"{log.name}.1"))


@contextmanager
def _opened(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> Generator[int]:
    descriptor = os.open(path, flags, 0o600)
    _open_locks.add(descriptor)
    try:
        _belong_to_directory(descriptor, path)
        yield descriptor
    finally:
        _open_locks.discard(descriptor)
        with suppress(OSError):  # a forked child has closed it already
            os.close(descriptor)


def _belong_to_directory(descriptor: int, path: Path) -> None:
    """Give a file that root made to the owner of its directory, who comes back to it without root's rights."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _spawn(argv: Sequence[str | Path], *, keep: int, output: int, account: Account) -> None:
    environment = {"PATH": os.defpath, "LC_ALL": "C"} | {
        name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ
    }
    # The shell ends at once, which leaves the server to init.
    subprocess.run(  # noqa: S603 - our own servers, no user input
        ["/bin/sh", "-c", '"$@" &', "sh", *argv],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd="/",
        env=environment,
        pass_fds=(keep,),
        start_new_session=True,
        umask=0o077,
        **account.as_subprocess_options(),
    )


def _pids() -> list[int]:
    if Path("/proc/self/cmdline").exists():
        return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208 - thousands of entries
    return [int(line) for line in _ps("-axo", "pid=").split()]


def _command_line(pid: int) -> str:
    """Give the words of a process's command line, empty for a zombie and for one that does not exist."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    return _ps("-o", "command=", "-p", str(pid))


def _ps(*arguments: str) -> str:
    result = subprocess.run(  # noqa: S603 - fixed words and a number
        ["/bin/ps", *arguments], check=False, capture_output=True, text=True
    )
    return result.stdout
