"""Recording processes are killed at any moment: what was acknowledged to them is in the log, once and in order."""

from __future__ import annotations

import os
import random
import time

import pytest

import workledger
from chaos.attack import begin, killed_at_the_end
from chaos.journals import assert_nothing_lost_or_doubled, read_journals
from support.proxy import Proxy
from support.waiting import wait_until

ROUNDS = int(os.environ.get("WORKLEDGER_TEST_ROUNDS", "50"))


def wait_for_more(folder, names, mark):
    """Wait until the load has written down some more changes, and for a moment that may be anywhere in the next."""
    wanted = lines_of(folder, names, mark) + random.randint(1, 60)
    wait_until(lambda: lines_of(folder, names, mark) >= wanted)
    time.sleep(random.random() * 0.01)


def lines_of(folder, names, mark):
    return sum(path.read_text().count(mark) for path in folder.glob(names))


@pytest.mark.parametrize("durability", ["commit", "buffered"])
@pytest.mark.parametrize(
    "rounds",
    [
        pytest.param(2, id="short"),
        pytest.param(ROUNDS, id="long", marks=[pytest.mark.chaos, pytest.mark.timeout(1800)]),
    ],
)
def test_what_a_killed_process_was_told_is_in_the_log_once(database_url, tmp_path, rounds, durability):
    """Every second one is killed while PostgreSQL is away, with changes in the spool."""
    home = tmp_path / "home"
    workledger.open(database_url, home=home).close()
    with Proxy(database_url) as proxy:
        for round_ in range(rounds):
            load = begin("load", proxy.url, home, tmp_path / f"journal-{round_}", 4, durability, 5.0)
            with killed_at_the_end(load):
                assert load.stdout.readline() == "recording\n"
                wait_for_more(tmp_path, f"journal-{round_}-*", "=")
                if round_ % 2:
                    proxy.refuse()
                    wait_for_more(tmp_path, f"journal-{round_}-*", "+")
                load.kill()
                load.wait(timeout=60)
            proxy.heal()
    made, acknowledged = read_journals(tmp_path.glob("journal-*-*"))
    with workledger.open(database_url, home=home) as heir:
        wait_until(lambda: heir._scribe._spool.waiting() == 0 and not heir._scribe._is_away, timeout_s=60)
    assert len(acknowledged) > rounds
    assert_nothing_lost_or_doubled(database_url, home, made, acknowledged)
