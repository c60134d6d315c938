"""Whatever is killed during an import, importing again gives what one undisturbed import gives."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from contextlib import closing

import psycopg
import pytest

import workledger
from support.processes import kill_all_in
from support.waiting import wait_until
from workledger.assembly import verify
from workledger.postgres.embedded import EmbeddedPostgres
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


def kill(process, home):
    """Kill an import, if it has not ended, with the database it works on."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    kill_all_in(home)
    process.communicate()


def kill_in_the_middle(path, home):
    """Kill an import that has written the first rows of a transaction, and has not got to the end of it."""
    url = EmbeddedPostgres(home / "postgres").ensure_running()
    with closing(psycopg.connect(url, options="-csearch_path=workledger")) as other:
        other.execute("LOCK TABLE feedback IN SHARE MODE")
        process = start_import(path, home)
        wait_until(lambda: _waits_for_a_lock(url) or process.poll() is not None)
        assert process.poll() is None
        kill(process, home)


def _waits_for_a_lock(url):
    with psycopg.connect(url, autocommit=True) as observer:
        return observer.execute("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchall()


def kill_at_random_moments(path, home, *, rounds, within_s, seed):
    """Start an import and kill it again and again."""
    moments = random.Random(seed)
    for _ in range(rounds):
        process = start_import(path, home)
        time.sleep(moments.uniform(0.2, within_s))
        kill(process, home)


def check(path, home):
    process = start_import(path, home)
    _, said = process.communicate(timeout=200)
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
    kill_in_the_middle(tau_airline_file, home)
    kill_at_random_moments(tau_airline_file, home, rounds=3, within_s=2.0, seed=1)
    check(tau_airline_file, home)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(5))
def test_an_import_survives_twenty_kills(tau_airline_file, home, seed):
    kill_at_random_moments(tau_airline_file, home, rounds=20, within_s=4.0, seed=seed)
    check(tau_airline_file, home)
