"""Whatever is killed between any two steps: nothing is lost, nothing is twice, and the next run goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from archive.test_reading import everything
from workledger.errors import DatabaseUnavailable, WorkledgerError

PROGRAM = Path(__file__).parent / "programs" / "archive_and_die.py"
#: Every kind of step that makes something last, by its first words.
STEPS = (
    *("written state", "checked state", "recorded state", "left state", "removed state"),
    *("written events", "checked events", "written payloads", "recorded events", "dropped events"),
)


class Archivers:
    """Archivers of their own processes, one after the other."""

    def __init__(self, old):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROGRAM.parents[2]), *sys.path])}
        command = [sys.executable, str(PROGRAM), old.url, str(old.folder)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, env=environment, text=True, bufsize=1, **pipes)

    def until(self, step, *, after_s=None):
        """Have one archive until it is killed, by itself after a step or from here after a time; what it said."""
        too_long = threading.Timer(120, self.process.kill)
        too_long.start()
        self.process.stdin.write(f"{step}\n")
        said = []
        for line in self.process.stdout:
            what, _, value = line.strip().partition(" ")
            if what == "ended":
                break
            if what != "child":
                said.append(line.strip())
            elif after_s is not None:
                time.sleep(after_s)
                with suppress(ProcessLookupError):  # it came to the end before
                    os.kill(int(value), signal.SIGKILL)
        too_long.cancel()
        assert value in {"0", str(-signal.SIGKILL)}, said
        assert value != "0" or said[-1].startswith("finished")
        return said

    def end(self):
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0


@pytest.fixture
def archivers(old):
    archivers = Archivers(old)
    yield archivers
    archivers.end()


def test_an_archiver_that_is_killed_after_a_step_of_each_kind_is_finished_by_the_next(old, archivers):
    old.live(3)
    head, before = old.head, everything(old.connection, old.head)
    for step in STEPS:
        assert archivers.until(step)[-1].startswith(step)
        assert old.faults() == []
        assert everything(old.connection, head) == before
    assert archivers.until("never")[-1].startswith("finished")
    assert old.faults() == []
    assert "events_2026_03" not in old.months()
    assert old.counts()["workflows"] == 0


@pytest.mark.chaos
def test_an_archiver_that_is_killed_after_every_step_is_finished_by_the_next(old, archivers):
    old.live(3, 4)
    head, before = old.head, everything(old.connection, old.head)
    for last in range(1, 80):
        said = archivers.until(last)
        assert old.faults() == []
        assert everything(old.connection, head) == before
        if said[-1].startswith("finished"):
            break
    assert "events_2026_03" not in old.months()
    assert old.counts()["workflows"] == 0


def test_running_again_changes_nothing(old):
    old.live(3)
    old.archive()
    old.settle()
    before = old.sql("SELECT * FROM archives ORDER BY name"), old.counts(), old.head
    report = old.archive(cutoff=datetime(2026, 11, 1, tzinfo=UTC))
    assert (report.state.workflows, report.partitions) == (0, [])
    assert (old.sql("SELECT * FROM archives ORDER BY name"), old.counts(), old.head) == before


def test_a_backend_that_is_killed_in_mid_archive_leaves_all_as_it_was(old):
    old.live(3, 4)
    head, before = old.head, everything(old.connection, old.head)
    for wanted in ("written", "checked", "recorded", "left"):

        def kill(step, _what, wanted=wanted):
            if step == wanted:
                old.connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND datname = current_database()"
                )

        with pytest.raises((DatabaseUnavailable, WorkledgerError)):
            old.archive(file_events=15, batch=4, on_step=kill)
        assert old.faults() == []
    old.archive()
    assert old.faults() == []
    assert everything(old.connection, head) == before


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(4))
def test_an_archiver_survives_kills_at_random_moments(old, archivers, seed):
    old.live(3, 4, 5)
    moments = random.Random(seed)
    head, before = old.head, everything(old.connection, old.head)
    for _ in range(25):
        archivers.until("never", after_s=moments.uniform(0.0, 0.8))
        assert old.faults() == []
    assert archivers.until("never")[-1].startswith("finished")
    assert everything(old.connection, head) == before
    assert old.faults() == []
    assert old.counts()["workflows"] == 0
