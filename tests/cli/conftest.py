"""The command line as people use it: in a folder of their own, against a store of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

import workledger
from workledger.cli.main import main


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def document(self):
        """The one JSON document on stdout."""
        assert self.out, f"exit {self.code} and no document; {self.err}"
        return json.loads(self.out)


@pytest.fixture
def environment(database_url, tmp_path, monkeypatch):
    """Settings that lead to this test's own stores, and a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("WORKLEDGER_") and "TEST" not in name]:
        monkeypatch.delenv(name)
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)  # they would have a say in how help and tables look
    settings = {
        "WORKLEDGER_DATABASE_URL": database_url,
        "WORKLEDGER_HOME": str(tmp_path / "home"),
        "WORKLEDGER_SYNAPSE_URL": "postgres:",
        "WORKLEDGER_TRAINING_URL": f"file:{tmp_path}/training?format=jsonl,csv",
        "WORKLEDGER_METRICS_URL": "prometheus://127.0.0.1:0",
        "WORKLEDGER_DASHBOARD_URL": "http://127.0.0.1:0",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    # On a busy machine everything takes long enough to be told of; one test looks at that.
    monkeypatch.setattr("workledger.cli._output._PLAIN_PROGRESS_S", 600.0)
    return tmp_path


@pytest.fixture
def cli(environment, capsys):
    """Runs a command in this process."""

    def run(*arguments):
        capsys.readouterr()
        code = main(list(arguments))
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return run


@pytest.fixture
def shell(environment):
    """Runs a command in a process of its own."""

    def run(*arguments, env=None, timeout_s=200, **options):
        command = [sys.executable, "-m", "workledger.cli.main", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=timeout_s, **options
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def ledger(environment, database_url):
    with workledger.open(database_url, lease_s=600) as ledger:
        yield ledger
