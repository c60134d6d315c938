"""Clients' clocks may be wrong by an hour or by ten years: order, leases and lists do not depend on them."""

from datetime import timedelta

import pytest

import workledger
from workledger.errors import ReplayMismatch
from workledger.flows.reap import reap
from workledger.flows.verify import check_events, check_log, check_state, one_moment
from workledger.log.sequencer import sequence
from workledger.model.clock import SystemClock

HOUR, DECADE = timedelta(hours=1), timedelta(days=3653)


class WrongClock(SystemClock):
    """The machine's clock, off by a fixed time."""

    def __init__(self, off_by):
        self._off_by = off_by

    def now(self):
        return super().now() + self._off_by


class Boom(Exception):
    pass


def program(ledger, ran, *, fail_at=None, order="abc"):
    def step(name):
        @ledger.task(name=name)
        def run(value):
            ran.append(name)
            if name == fail_at:
                raise Boom
            return f"{name}{value}"

        return run

    steps = {name: step(name) for name in "abc"}

    @ledger.workflow(name="program")
    def call(value):
        return "".join(steps[name](value) for name in order)

    return call


@pytest.fixture
def open_with(database_url, tmp_path):
    opened = []

    def open_with(off_by):
        ledger = workledger.open(database_url, home=tmp_path / "home", clock=WrongClock(off_by))
        opened.append(ledger)
        return ledger

    yield open_with
    for ledger in opened:
        ledger.close()


@pytest.mark.parametrize(
    ("first", "second"),
    [(HOUR, -HOUR), (-HOUR, HOUR), (DECADE, -DECADE), (-DECADE, DECADE)],
    ids=["hour-ahead-first", "hour-behind-first", "decade-ahead-first", "decade-behind-first"],
)
def test_two_processes_with_wrong_clocks_record_resume_and_list_as_if_they_were_right(open_with, first, second):
    ran = []
    one, two, three = open_with(first), open_with(second), open_with(first)
    with pytest.raises(Boom):
        program(one, ran, fail_at="b").options(workflow_id="w")(1)
    with pytest.raises(Boom):
        program(two, ran, fail_at="c").options(workflow_id="w")(1)
    with pytest.raises(ReplayMismatch, match="called before 'a'"):
        program(three, ran, order="bac").options(workflow_id="w")(1)
    assert program(three, ran).options(workflow_id="w")(1) == "a1b1c1"
    assert ran == ["a", "b", "b", "c", "c"]

    workflow = two.get_workflow("w")
    assert (workflow.status, workflow.attempt, workflow.completed_steps) == ("completed", 4, 3)
    assert workflow.execution_time_ms >= 0

    for ledger in (one, two):
        for _ in range(5):
            program(ledger, ran)(2)
    with one.start_workflow("open", workflow_id="open"):
        assert_it_runs_for_everybody(one, two)
    assert_it_verifies(two)
    assert_every_list_is_whole(two, 12)


def assert_it_runs_for_everybody(one, two):
    """The lease is the server's business."""
    with two.pool.connection() as connection:
        assert reap(connection, two.recorder, clock=two.clock) == 0
    for ledger in (one, two):
        assert [workflow.workflow_id for workflow in ledger.running()] == ["open"]
        assert ledger.stuck(quiet_s=600) == []
        assert {workflow.workflow_id for workflow in ledger.stuck(quiet_s=0)} <= {"open"}


def assert_every_list_is_whole(ledger, total):
    found, cursor = [], None
    while True:
        page = ledger.find(limit=3, cursor=cursor)
        found += [workflow.workflow_id for workflow in page]
        cursor = page.cursor
        if cursor is None:
            break
    assert len(found) == len(set(found)) == total
    events = [entry.event_type for entry in ledger.timeline("w")]
    assert events[0] == "workflow.started"
    assert events[-1] == "workflow.completed"


def assert_it_verifies(ledger):
    with ledger.pool.connection() as connection:
        sequence(connection, schema="workledger")
        with one_moment(connection):
            checks = [check_state(connection, schema="workledger"), check_log(connection), check_events(connection)]
    assert [str(fault) for check in checks for fault in check.faults] == []
