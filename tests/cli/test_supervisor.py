"""Loops under the supervisor: one that fails says so once, comes back, and disturbs nobody."""

from __future__ import annotations

import logging
from contextlib import contextmanager

from support import wait_until
from workledger.errors import DatabaseUnavailable
from workledger.flows.up import Loop, Supervisor


def loop(step, *, name="one", on_close=lambda: None):
    @contextmanager
    def open_it(_stop):
        try:
            yield step
        finally:
            on_close()

    return Loop(name=name, open=open_it, pause_s=0.01)


def of_loops(caplog):
    """What was logged of loops: threads of other tests may have something to say, too."""
    return [record for record in caplog.records if record.name == "workledger.flows.up"]


def test_a_loop_steps_until_it_is_told_to_stop_and_lets_go_of_what_it_had():
    steps, closed = [], []
    with Supervisor([loop(lambda: steps.append(1) or 0, on_close=lambda: closed.append(1))]) as supervisor:
        wait_until(lambda: len(steps) >= 3)
        assert supervisor.errors() == {}
    assert closed == [1]
    count = len(steps)
    assert supervisor.stop() == []
    assert len(steps) == count


def test_a_loop_that_has_work_does_not_pause():
    left = [10_000]

    def step():
        left[0] -= 1
        return left[0] > 0

    with Supervisor([loop(step)]):
        wait_until(lambda: left[0] <= 0, timeout_s=30)  # with pauses it would take 100 s


def test_a_loop_that_fails_says_so_once_and_says_when_it_is_well_again(caplog, monkeypatch):
    monkeypatch.setattr("workledger.flows.up._FIRST_PAUSE_S", 0.01)
    tries = []

    def step():
        tries.append(1)
        if len(tries) <= 4:
            raise DatabaseUnavailable("PostgreSQL is away")
        return 0

    with caplog.at_level(logging.WARNING), Supervisor([loop(step)]) as supervisor:
        wait_until(lambda: len(tries) > 5)
        assert supervisor.errors() == {}
    said = [record.getMessage() for record in of_loops(caplog)]
    assert said == [
        "loop.failed loop=one reason=PostgreSQL is away (said once; it is tried again)",
        "loop.recovered loop=one failures=4",
    ]


def test_a_bug_in_one_loop_is_logged_with_its_traceback_and_the_others_go_on(caplog, monkeypatch):
    monkeypatch.setattr("workledger.flows.up._FIRST_PAUSE_S", 0.01)
    steps = []

    def broken():
        raise ZeroDivisionError("oh")

    with Supervisor([loop(broken, name="broken"), loop(lambda: steps.append(1) or 0)]) as supervisor:
        wait_until(lambda: len(steps) > 20)
        assert supervisor.errors() == {"broken": "ZeroDivisionError: oh"}
    (record,) = of_loops(caplog)
    assert record.exc_info


def test_a_loop_that_will_not_end_is_named():
    import threading

    release = threading.Event()
    supervisor = Supervisor([loop(lambda: release.wait(100) and 0, name="stubborn")])
    supervisor.start()
    assert wait_until(lambda: supervisor.stop(timeout_s=0.05)) == ["stubborn"]
    release.set()
    assert supervisor.stop(timeout_s=60) == []
