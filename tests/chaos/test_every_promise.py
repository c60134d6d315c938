"""Every promise at once: many writing processes and several `workledger up`, all of them killed again and again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chaos.attack import PROGRAMS, environment
from workledger.postgres.connection import connect

WRITERS = int(os.environ.get("WORKLEDGER_TEST_WRITERS", "16"))
CHANGES = int(os.environ.get("WORKLEDGER_TEST_EVENTS", "100000"))
LOOPS = ("sequencer", "training", "maintenance", "metrics", "sealer", "checkpoints", "collector", "partitions")


class Turmoil:
    """Processes that are killed at random, and started again until the writers are through.

    The kills are spread over what is written and not over time, so that a fast machine sees as many of them.
    """

    def __init__(self, url: str, folder: Path, *, writers: int, changes: int, ups: int, seed: int) -> None:
        self.url = url
        self.folder = folder
        self.changes = changes
        self.writers = [f"writer-{n}" for n in range(writers)]
        self.ups = [f"up-{n}" for n in range(ups)]
        self.chance = random.Random(seed)
        self.kills = 0
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.environ = environment(
            WORKLEDGER_DATABASE_URL=url,
            WORKLEDGER_HOME=str(folder / "home"),
            WORKLEDGER_SYNAPSE_URL="postgres:",
            WORKLEDGER_TRAINING_URL=f"file:{folder}/training?format=jsonl,csv",
            WORKLEDGER_METRICS_URL="",
            WORKLEDGER_DASHBOARD_URL="",
            WORKLEDGER_SEAL_AFTER_S="0.5",
            WORKLEDGER_FLUSH_S="0.5",
            WORKLEDGER_CHECKPOINTS_URL=f"file:{folder}/kept",
            WORKLEDGER_CHECKPOINT_EVERY_S="1",
        )

    def cli(self, *arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "workledger.cli.main", *arguments]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=timeout_s, check=False)

    def start(self, name: str) -> None:
        if name in self.ups:
            command = [sys.executable, "-m", "workledger.cli.main", "up"]
            command += [word for loop in LOOPS for word in ("--only", loop)]
        else:
            program = PROGRAMS / "promise_writer.py"
            command = [sys.executable, program, self.url, name, str(self.changes), str(self.folder)]
        with (self.folder / f"{name}.out").open("ab") as out:
            self.running[name] = subprocess.Popen(command, env=self.environ, stdout=out, stderr=out)

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait(60)

    def run(self, *, kill_every: int, within_s: float) -> None:
        """Run until all is written, with a kill for each `kill_every` changes or so."""
        deadline = time.monotonic() + within_s
        try:
            for name in [*self.ups, *self.writers]:
                self.start(name)
            next_kill = kill_every
            while any(name in self.running for name in self.writers):
                assert time.monotonic() < deadline, f"not through in {within_s} s: {sorted(self.running)}"
                time.sleep(0.005)
                self._see_who_ended()
                if (written := self._written()) >= next_kill and self.running:
                    time.sleep(self.chance.random() * 0.02)
                    victim = self.chance.choice(sorted(self.running))
                    self.kill(victim)
                    self.start(victim)
                    self.kills += 1
                    next_kill = written + int(kill_every * self.chance.random() * 2)
        finally:
            for name in list(self.running):
                self.kill(name)

    def _see_who_ended(self) -> None:
        for name, process in list(self.running.items()):
            if process.poll() is None:
                continue
            said = (self.folder / f"{name}.out").read_text()[-3000:]
            assert name in self.writers, f"{name} ended by itself: {said}"
            assert process.returncode == 0, f"{name} ended with {process.returncode}: {said}"
            del self.running[name]

    def check(self, *, within_s: float, checkpoints: int) -> None:
        answer = self.cli("verify", "--wait", "--json", timeout_s=within_s)
        assert answer.returncode == 0, (answer.stdout[-6000:], answer.stderr[-3000:])
        checks = {check["name"]: check for check in json.loads(answer.stdout)["checks"]}
        assert {"log", "events", "payloads", "state", "training", "metrics", "seals"} <= checks.keys()
        assert checks["seals"]["counts"]["checkpoints"] >= checkpoints
        with connect(self.url) as connection:
            rows = connection.execute(
                "SELECT event_id::text, position FROM events JOIN event_positions USING (event_id)"
            ).fetchall()
        positions = dict(rows)
        assert len(rows) == len(positions)
        assert sorted(positions.values()) == list(range(1, len(positions) + 1))
        orders = self._orders()
        assert {event_id for order in orders.values() for event_id in order} == positions.keys()
        for workflow_id, order in orders.items():
            there = [positions[event_id] for event_id in order]
            assert there == sorted(there), f"the changes of {workflow_id} are out of order in the log"

    def _written(self) -> int:
        """How many changes are known to be committed."""
        return sum(path.read_bytes().count(b"\n") for path in self.folder.glob("*.journal"))

    def _orders(self) -> dict[str, list[str]]:
        """What the writers were told is recorded: for each workflow, its changes in order, each once."""
        orders: dict[str, dict[str, None]] = {}
        for name in self.writers:
            assert not (self.folder / f"{name}.intent").exists()
            for line in (self.folder / f"{name}.journal").read_text().splitlines():
                event_id, workflow_id = line.split()
                orders.setdefault(workflow_id, {})[event_id] = None
        return {workflow_id: list(order) for workflow_id, order in orders.items()}


@pytest.fixture
def turmoil(database_url, tmp_path):
    def make(**options) -> Turmoil:
        turmoil = Turmoil(database_url, tmp_path, **options)
        for words in (("migrate",), ("keys", "new")):
            answer = turmoil.cli(*words, timeout_s=120)
            assert answer.returncode == 0, answer.stderr
        return turmoil

    return make


@pytest.mark.timeout(600)
def test_every_promise_holds_when_writers_and_everything_that_loops_are_killed(turmoil):
    one = turmoil(writers=2, changes=600, ups=2, seed=7)
    one.run(kill_every=200, within_s=250)
    one.check(within_s=250, checkpoints=0)
    assert one.kills > 0


@pytest.mark.chaos
@pytest.mark.timeout(4 * 3600)
def test_every_promise_holds_under_many_writers_killed_at_random(turmoil):
    one = turmoil(writers=WRITERS, changes=CHANGES, ups=3, seed=16)
    one.run(kill_every=10_000, within_s=2 * 3600)
    one.check(within_s=3600, checkpoints=1)
    assert one.kills > 20
