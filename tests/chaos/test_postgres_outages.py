"""PostgreSQL is stopped, killed and restarted under load from several processes and threads."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

import workledger
from chaos.attack import begin, killed_at_the_end
from chaos.journals import assert_nothing_lost_or_doubled, read_journals
from support.waiting import wait_until
from workledger.errors import WorkledgerError
from workledger.postgres.embedded import EmbeddedPostgres

NUMBERS = itertools.count()
TIMEOUT_S = 0.5
ROUNDS = int(os.environ.get("WORKLEDGER_TEST_ROUNDS", "60"))


@pytest.fixture
def server(servers_dir):
    directory = servers_dir / f"outages-{next(NUMBERS)}"
    directory.mkdir(mode=0o711)
    server = EmbeddedPostgres(directory / "postgres")
    server.ensure_running()
    yield server
    server.delete()
    shutil.rmtree(directory)


def stop_fast(server):
    server.stop()


def stop_immediately(server):
    os.kill(server.pid, signal.SIGQUIT)
    wait_until(lambda: not server.is_running(), timeout_s=30)


def kill_postmaster(server):
    os.kill(server.pid, signal.SIGKILL)


def kill_a_backend(server):
    with psycopg.connect(server.ensure_running(), autocommit=True) as connection:
        pids = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        ).fetchall()
    if pids:
        with suppress(ProcessLookupError):
            os.kill(random.choice(pids)[0], signal.SIGKILL)


def cut_every_connection(server):
    with psycopg.connect(server.ensure_running(), autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")


def stand_still(server):
    """Stop every process of the server for longer than a write may wait."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    stopped = [server.pid, *map(int, children)]
    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(TIMEOUT_S * 2)
    finally:
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


ATTACKS = [kill_postmaster, stand_still, stop_fast, kill_a_backend, stop_immediately, cut_every_connection]


def attack(server, how):
    """Do it, leave it so for a moment, and have the server back."""
    with suppress(psycopg.OperationalError):
        how(server)
    time.sleep(random.random() * 0.3)
    deadline = time.monotonic() + 60
    while True:
        try:
            server.ensure_running()
            with psycopg.connect(server.ensure_running()):
                return
        except (WorkledgerError, psycopg.OperationalError):
            assert time.monotonic() < deadline, "the server does not come back"
            time.sleep(0.1)


def acknowledged_so_far(folder):
    return sum(path.read_text().count("=") for path in folder.glob("journal-*-*"))


@pytest.mark.parametrize("durability", ["commit", "buffered"])
@pytest.mark.parametrize(
    ("rounds", "processes"),
    [
        pytest.param(2, 1, id="short"),
        pytest.param(ROUNDS, 3, id="long", marks=[pytest.mark.chaos, pytest.mark.timeout(1800)]),
    ],
)
def test_no_acknowledged_change_is_lost_or_doubled_or_out_of_order(server, tmp_path, rounds, processes, durability):
    url = server.ensure_running()
    workledger.open(url, home=tmp_path / "first").close()
    loads = [
        begin("load", url, tmp_path / f"home-{n // 2}", tmp_path / f"journal-{n}", 4, durability, TIMEOUT_S)
        for n in range(processes)
    ]
    with killed_at_the_end(*loads):
        for load in loads:
            assert load.stdout.readline() == "recording\n"
        for round_ in range(rounds):
            time.sleep(0.1 + random.random() * 0.4)
            attack(server, ATTACKS[round_ % len(ATTACKS)])
        wait_until(lambda: acknowledged_so_far(tmp_path) > 100)
        for n in range(len(loads)):
            Path(f"{tmp_path}/journal-{n}.stop").touch()
        for load in loads:
            output, complaints = load.communicate(timeout=150)
            assert load.returncode == 0, complaints[-3000:]
            assert output.startswith("spooled")
    made, acknowledged = read_journals(tmp_path.glob("journal-*-*"))
    if durability == "buffered":  # all of it was flushed
        acknowledged = {event_id for changes in made.values() for event_id in changes}
    assert len(acknowledged) > 100
    assert_nothing_lost_or_doubled(url, tmp_path / "first", made, acknowledged)
