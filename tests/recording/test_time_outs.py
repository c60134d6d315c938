"""Recording blocks the recorded program for no longer than its budget, whatever the server does."""

import asyncio
import threading
import time

import psycopg
import pytest

import workledger
from support.changes import complete, start, task, whole_workflow
from support.proxy import Proxy
from support.waiting import wait_until
from workledger.errors import DatabaseUnavailable, InvalidInput
from workledger.postgres.connection import connect, translate_errors
from workledger.postgres.deadline import Deadline

LONG_S = 30  # far beyond the budget of these ledgers


@pytest.fixture
def proxy(database_url):
    with Proxy(database_url) as proxy:
        yield proxy


def within_budget(action):
    """Run it in a thread that must not hang; gives what it returned or raised."""
    answer = []

    def run():
        try:
            answer.append(action())
        except Exception as error:
            answer.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LONG_S)
    assert not thread.is_alive(), "it blocks the recorded program"
    return answer[0]


@pytest.fixture
def begun(ledger):
    """A workflow `w`, recorded without haste."""
    ledger.record(start(workflow_id="w"))


def connect_at_last(ledger):
    """Have the recorder's connection open, however long that takes."""
    wait_until(lambda: went_through(ledger.recorder.check))


def went_through(action):
    try:
        action()
    except DatabaseUnavailable:  # on a busy machine the budget may be over before the answer is there
        return False
    return True


@pytest.mark.parametrize("durability", ["commit", "buffered"])
def test_a_server_that_stands_still_does_not_hold_up_the_program(proxy, tmp_path, durability, begun):
    options = {"home": tmp_path, "durability": durability, "record_timeout_s": 0.4}
    with workledger.open(proxy.url, **options) as ledger:
        connect_at_last(ledger)
        proxy.stall()

        def go_on():
            ledger.record(complete(workflow_id="w"))
            for change in whole_workflow():
                ledger.record(change)
            ledger.flush()

        assert within_budget(go_on) is None
        assert ledger.tally.spooled == 7
        proxy.heal()
        wait_until(lambda: len(ledger.workflows(status="completed")) == 2)
        assert ledger.tally.refused == 0


def test_a_coroutine_is_not_held_up_either(proxy, tmp_path, begun):
    with workledger.open(proxy.url, home=tmp_path, record_timeout_s=0.4) as ledger:
        connect_at_last(ledger)
        proxy.stall()
        outcome = within_budget(lambda: asyncio.run(ledger.record_async(complete(workflow_id="w"))))
        assert outcome.applied is False
        proxy.heal()
        wait_until(lambda: ledger.get_workflow("w").status == "completed")


def test_without_a_spool_the_caller_is_told(proxy, tmp_path, begun):
    with workledger.open(proxy.url, home=tmp_path, record_timeout_s=0.4, spool_limit_bytes=0) as ledger:
        connect_at_last(ledger)
        proxy.stall()
        change = complete(workflow_id="w")
        told = within_budget(lambda: ledger.record(change))
        assert isinstance(told, DatabaseUnavailable)
        assert "within 0.4 s" in str(told)
        proxy.heal()
        # The same change: the server may get what it was sent before, too, now that it is heard again.
        wait_until(lambda: went_through(lambda: ledger.record(change)))
        assert ledger.get_workflow("w").status == "completed"


def test_a_lock_that_somebody_keeps_does_not_hold_up_the_program(database_url, tmp_path, begun):
    with workledger.open(database_url, home=tmp_path, record_timeout_s=0.5) as ledger:
        with psycopg.connect(database_url, options="-csearch_path=workledger") as other:
            other.execute("SELECT FROM workflows WHERE workflow_id = 'w' FOR UPDATE")
            outcome = within_budget(lambda: ledger.record(complete(workflow_id="w")))
            assert outcome.applied is False
            assert within_budget(lambda: ledger.record(start(workflow_id="v"))).applied is False  # in its turn
            assert ledger.tally.spooled == 2
        wait_until(lambda: ledger.get_workflow("w").status == "completed")
        wait_until(lambda: [run.workflow_id for run in ledger.workflows(status="running")] == ["v"])


def test_without_a_spool_a_lock_is_named(database_url, tmp_path, begun, monkeypatch):
    monkeypatch.setattr("workledger.flows.record._LOCK_SHARE", 0.01)  # else a stall could make the two time-outs meet
    with workledger.open(database_url, home=tmp_path, record_timeout_s=30, spool_limit_bytes=0) as ledger:
        with psycopg.connect(database_url, options="-csearch_path=workledger") as other:
            other.execute("SELECT FROM workflows WHERE workflow_id = 'w' FOR UPDATE")
            told = within_budget(lambda: ledger.record(complete(workflow_id="w")))
        assert isinstance(told, DatabaseUnavailable)
        assert "no lock in time" in str(told)
        assert ledger.record(complete(workflow_id="w")).applied


class HandTime:
    """Time as a deadline sees it: it looks without a pause, and a test moves the clock."""

    def __init__(self):
        self.at_s = 1000.0
        self.looks = 0

    def monotonic(self):
        return self.at_s

    def sleep(self, _):
        self.looks += 1
        time.sleep(0.001)


@pytest.fixture
def hand_time(monkeypatch):
    hand_time = HandTime()
    monkeypatch.setattr("workledger.postgres.deadline.time", hand_time)
    return hand_time


def test_a_deadline_looks_on_only_while_there_is_something_to_see(database_url, hand_time):
    deadline = Deadline(10)
    with connect(database_url, schema="public") as connection:
        for _ in range(3):
            with deadline.over(connection):
                connection.execute("SELECT 1")
            wait_until(lambda: not deadline._is_watched)
        assert not deadline.has_passed


def test_a_deadline_cuts_what_takes_too_long(database_url):
    deadline = Deadline(0.05)
    with connect(database_url, schema="public") as connection:
        with pytest.raises(psycopg.OperationalError), deadline.over(connection):
            connection.execute("SELECT pg_sleep(600)")
        assert deadline.has_passed


def test_a_deadline_that_is_over_cuts_nothing_that_comes_later(database_url, hand_time):
    deadline = Deadline(10)
    with connect(database_url, schema="public") as connection:
        for _ in range(10):
            with deadline.over(connection):
                connection.execute("SELECT 1")
            looks = hand_time.looks
            hand_time.at_s += 20
            wait_until(lambda before=looks: hand_time.looks > before + 1 or not deadline._is_watched)
            connection.execute("SELECT 1")
        assert not deadline.has_passed


def test_what_postgresql_can_never_hold_is_refused_and_not_spooled(database_url, tmp_path):
    with connect(database_url, schema="public") as connection:
        connection.execute("CREATE TABLE narrow (value text PRIMARY KEY)")
        with pytest.raises(InvalidInput, match="index row"), translate_errors():
            connection.execute("INSERT INTO narrow SELECT string_agg(random()::text, '') FROM generate_series(1, 1000)")


def test_a_server_that_only_reads_is_away_and_not_at_fault(database_url):
    with connect(database_url, schema="public") as connection:
        connection.execute("SET default_transaction_read_only = on")
        with pytest.raises(DatabaseUnavailable, match="takes no writes now"), translate_errors():
            connection.execute("CREATE TABLE t ()")


def test_a_step_far_down_has_a_key_that_fits_and_is_found_again(ledger):
    ran = []

    def nested(depth):
        @ledger.task(name=f"level-{depth}-" + "x" * 60)
        def call():
            ran.append(depth)
            if depth < 6:
                return [nested(depth + 1)(), nested(depth + 1)()] if depth == 5 else nested(depth + 1)()
            if ran.count(6) == 2:
                raise RuntimeError("interrupted")
            return "down"

        return call

    @ledger.workflow
    def deep():
        return nested(0)()

    with pytest.raises(RuntimeError):
        deep.options(workflow_id="w")()
    assert deep.options(workflow_id="w")() == ["down", "down"]
    assert ran.count(6) == 3  # the first of the two was not run again
    keys = {execution.step_key for execution in ledger.executions("w")}
    assert len(keys) == 8
    assert max(map(len, keys)) == 255


def test_a_step_key_that_is_too_long_is_refused_clearly(ledger):
    with pytest.raises(InvalidInput, match="step_key has 300 characters"):
        task(workflow_id="w", execution_id="x", step_key="k" * 300)
