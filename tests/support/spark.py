"""Spark as somebody else's reader: pyspark in an environment of its own, jars from Maven Central, both in the cache."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.requirements import require

__all__ = ["spark_rows"]

_HERE = Path(__file__).with_name("spark")
_PYSPARK = "pyspark==4.0.1"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"


def spark_rows(kind: str, tables: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Read tables, by their names and places, as Spark does: their columns, and their rows as text by position."""
    python, jars = _installed()
    argv = [
        python,
        str(_HERE / "read.py"),
        ",".join(str(jar) for jar in sorted(jars.glob("*.jar"))),
        kind,
        *(f"{name}={place}" for name, place in tables.items()),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=280, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.partition("RESULT ")[2])


def _installed() -> tuple[str, Path]:
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            require("spark", f"{program} is not installed; tools/install-test-servers installs it")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "workledger-tests"
    cache.mkdir(parents=True, exist_ok=True)
    home = cache / _PYSPARK.replace("==", "-")
    with (cache / "spark.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            _install(home)
    return str(home / "bin" / "python"), home / "jars"


def _install(home: Path) -> None:
    draft = home.with_name(f"{home.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    for argv in (
        [sys.executable, "-m", "venv", str(draft)],
        [str(draft / "bin" / "python"), "-m", "pip", "install", "-q", _PYSPARK],
        [
            *("mvn", "-q", "-B", "-f", str(_HERE / "pom.xml"), _COPY),
            *("-DexcludeTransitive=true", f"-DoutputDirectory={draft / 'jars'}"),
        ],
    ):
        run = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280)
        if run.returncode != 0:
            said = (run.stdout + run.stderr).strip().splitlines() or ["no reason given"]
            require("spark", f"{Path(argv[0]).name} failed: {said[0]}")
    draft.rename(home)
