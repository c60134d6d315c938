"""`up` runs everything that loops, tells where it is, and ends when it is told to; `stop` tells it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager

import pytest

from support import wait_until
from training.reading import records
from workledger.cli import _running
from workledger.training.records import RecordType
from workledger.training.store import open_store


@contextmanager
def up(*arguments, env=None):
    """A `workledger up` in a process of its own; gives the process and what it announced."""
    command = [sys.executable, "-m", "workledger.cli.main", "up", "--json", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
    ) as process:
        try:
            document, line = "", None
            while line != "}\n":
                line = process.stdout.readline()
                assert line, process.stderr.read()
                document += line
            yield process, json.loads(document)
        finally:
            process.kill()


def ends(process, number):
    process.send_signal(number)
    code = process.wait(timeout=100)
    return code, process.stderr.read()


def get(url):
    with urllib.request.urlopen(url, timeout=60) as response:
        return response.read().decode()


@pytest.fixture(autouse=True)
def _quick(monkeypatch, environment):
    monkeypatch.setenv("WORKLEDGER_FLUSH_S", "0.2")


def lines_landed(folder):
    return records(open_store(f"file:{folder}/training?format=jsonl,csv"), RecordType.WORKFLOWS)


def test_what_is_recorded_reaches_every_store_while_up_runs(environment, ledger):
    with up() as (process, told):
        assert told["loops"] == [
            *("sequencer", "training", "maintenance", "metrics", "prometheus", "webhooks", "reaper", "sealer"),
            *("partitions", "collector", "dashboard"),
        ]
        with ledger.start_workflow("seen", workflow_id="seen-1") as run:
            run.message("user", "hello")
        assert wait_until(lambda: lines_landed(environment), timeout_s=100)[0]["workflow_id"] == "seen-1"
        wait_until(
            lambda: 'workledger_workflows_total{name="seen",status="completed"} 1.0' in get(told["urls"]["metrics"]),
            timeout_s=100,
        )
        assert "seen-1" in get(told["urls"]["dashboard"] + "/workflows/seen-1")
        code, said = ends(process, signal.SIGTERM)
    assert code == 0
    assert said.rstrip().endswith("stopping")
    assert not list((environment / "home/up").glob("[0-9]*"))


def test_ctrl_c_ends_it_cleanly_and_without_a_traceback(environment, ledger):
    with up() as (process, _):
        code, said = ends(process, signal.SIGINT)
    assert (code, "Traceback" in said) == (0, False)


def test_one_loop_alone_does_its_work_and_no_other(environment, ledger):
    with ledger.start_workflow("seen"):
        pass
    with up("--only", "training", "--only", "metrics") as (process, told):
        assert (told["loops"], told["urls"]) == (["training", "metrics"], {})
        assert wait_until(lambda: lines_landed(environment), timeout_s=100)
        assert ends(process, signal.SIGTERM)[0] == 0


def test_a_loop_that_does_not_exist_is_refused(cli):
    answer = cli("up", "--only", "nothing")
    assert answer.code == 2
    assert answer.err.startswith("error: there is no loop 'nothing'; there are sequencer, ")


def test_two_copies_share_the_work_and_one_goes_on_when_the_other_is_killed(environment, ledger, cli):
    with up() as (first, _), up() as (second, told):
        assert told["pid"] == second.pid
        for n in range(20):
            with ledger.start_workflow("shared", workflow_id=f"shared-{n}"):
                pass
        first.kill()
        with ledger.start_workflow("shared", workflow_id="shared-20"):
            pass
        wait_until(lambda: len(lines_landed(environment)) == 21, timeout_s=100)
        ids = [line["workflow_id"] for line in lines_landed(environment)]
        assert sorted(ids) == sorted(f"shared-{n}" for n in range(21))
        assert ends(second, signal.SIGTERM)[0] == 0
    assert cli("verify").code == 0


def test_work_of_a_dead_process_is_recorded_as_lost(environment, ledger, tmp_path):
    script = tmp_path / "dies.py"
    script.write_text(
        "import os, signal, workledger\n"
        "ledger = workledger.open(lease_s=2)\n"
        "run = ledger.start_workflow('doomed', workflow_id='doomed-1').__enter__()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, script], check=False, timeout=100)
    assert ledger.get_workflow("doomed-1").status == "running"
    with up("--only", "reaper", env={"WORKLEDGER_LEASE_S": "2"}):
        wait_until(lambda: ledger.get_workflow("doomed-1").status == "failed", timeout_s=100)
    assert ledger.get_workflow("doomed-1").error_type == "WorkerLost"


def test_an_address_that_is_taken_is_said_once_and_the_rest_goes_on(environment, ledger):
    with up() as (_, told):
        taken = {
            "WORKLEDGER_DASHBOARD_URL": told["urls"]["dashboard"],
            "WORKLEDGER_METRICS_URL": told["urls"]["metrics"].replace("http", "prometheus").removesuffix("/metrics"),
        }
        with up(env=taken) as (second, other):
            assert other["urls"] == {}
            code, said = ends(second, signal.SIGTERM)
    assert code == 0
    assert said.count("loop.failed loop=dashboard") == 1
    assert said.count("loop.failed loop=prometheus") == 1


def test_in_the_background_it_comes_up_is_found_again_and_stopped(cli, shell, environment, ledger):
    first = shell("up", "--detach", "--json").document
    try:
        again = shell("up", "--detach", "--json")
        assert again.document == first
        assert again.err == f"already running as process {first['pid']}\n"
        assert "<!doctype html>" in get(first["urls"]["dashboard"]).lower()
        assert f"running as process {first['pid']}" in cli("doctor").out
    finally:
        stopped = cli("stop")
    assert stopped.out == f"Stopped up (process {first['pid']}, project workledger).\n"
    assert _running.find(environment / "home") == []


def test_in_the_background_what_keeps_it_from_coming_up_is_told(shell, environment):
    answer = shell("up", "--detach", "--database-url", "postgresql://nobody@127.0.0.1:1/none")
    assert answer.code == 1
    assert answer.err.startswith("error: `workledger up` did not come up: PostgreSQL cannot be reached")


def test_a_copy_that_was_killed_is_not_taken_for_a_living_one(environment, ledger, cli):
    with up() as (process, _):
        process.kill()
        process.wait(60)
    assert _running.find(environment / "home") == []
    assert cli("stop").out == f"Nothing was running for {environment}/home.\n"
