"""Whatever is killed during an import, importing again gives what one undisturbed import gives."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid

import pytest

import workledger
from support.processes import kill_all_in
from workledger.assembly import verify
from workledger.settings import load_settings


def start_import(path, home):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WORKLEDGER_")}
    environment |= {"WORKLEDGER_HOME": str(home), "WORKLEDGER_SYNAPSE_URL": "postgres:"}
    return subprocess.Popen(
        [sys.executable, "-m", "workledger.cli.main", "import", "tau-bench", str(path), "--name", "airline"],
        env=environment,
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def kill_at_random_moments(path, home, *, rounds, within_s, seed):
    """Start an import and kill it, with the database it works on, again and again; returns how many were cut short."""
    moments, cut_short = random.Random(seed), 0
    for _ in range(rounds):
        process = start_import(path, home)
        time.sleep(moments.uniform(0.2, within_s))
        cut_short += process.poll() is None
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
        kill_all_in(home)
        process.communicate()
    return cut_short


def check(path, home):
    process = start_import(path, home)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said.decode()
    settings = load_settings(environ={}, folder=home, home=home, synapse_url="postgres:")
    with workledger.open(home=home) as ledger, ledger.pool.connection() as connection:
        tables = ("workflows", "conversations", "messages", "task_executions", "feedback", "events")
        counts = [connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]
    assert counts[:5] == [200, 200, 5308, 1164, 200]
    faults = [fault for one in verify(settings, names=["log", "events", "payloads", "state"]) for fault in one.faults]
    assert faults == []


@pytest.fixture
def home(servers_dir):
    folder = servers_dir / f"killed-{uuid.uuid4().hex[:8]}"
    folder.mkdir(mode=0o711)
    yield folder
    kill_all_in(folder)


def test_an_import_that_is_killed_with_its_database_can_be_run_again(tau_airline_file, home):
    start_import(tau_airline_file.parent / "none", home).communicate()  # makes the database, imports nothing
    cut_short = kill_at_random_moments(tau_airline_file, home, rounds=5, within_s=2.5, seed=1)
    assert cut_short > 0
    check(tau_airline_file, home)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(5))
def test_an_import_survives_twenty_kills(tau_airline_file, home, seed):
    kill_at_random_moments(tau_airline_file, home, rounds=20, within_s=4.0, seed=seed)
    check(tau_airline_file, home)
