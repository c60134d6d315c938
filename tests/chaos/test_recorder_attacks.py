"""Group commit under attack: whatever happens to the caller that leads, every other caller gets its answer."""

import itertools
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import psycopg
import pytest

import workledger
from chaos.attack import run_program
from support.changes import complete, make, start, whole_workflow
from support.waiting import wait_until
from workledger.errors import InvalidInput, WorkledgerError

ROUNDS = [pytest.param(20, id="short"), pytest.param(400, id="long", marks=pytest.mark.chaos)]


def record_whole(ledger):
    for change in whole_workflow():
        ledger.record(change)


@pytest.fixture
def ledger(database_url, tmp_path):
    """A ledger that waits for a lock as long as a test may take on a busy machine."""
    with workledger.open(database_url, home=tmp_path / "home", record_timeout_s=120) as ledger:
        yield ledger


@pytest.fixture
def stalled(ledger, database_url):
    """A workflow `w` whose row somebody else has locked, and the way to let go of it."""
    ledger.record(start(workflow_id="w"))
    with psycopg.connect(database_url, options="-csearch_path=workledger") as other:
        other.execute("SELECT FROM workflows WHERE workflow_id = 'w' FOR UPDATE")
        yield other.rollback


@pytest.mark.parametrize("rounds", ROUNDS)
def test_ctrl_c_in_the_main_thread_leaves_no_other_caller_without_an_answer(database_url, tmp_path, rounds):
    # The driver warns of what it finds half done.
    assert int(run_program("interrupted", database_url, tmp_path, rounds, may_complain=True)) > 0


def test_a_caller_that_is_interrupted_while_it_waits_does_not_hold_up_the_others(ledger, stalled):
    with ThreadPoolExecutor(8) as pool:
        leader = pool.submit(ledger.record, make("progress_workflow", workflow_id="w", current_step="a"))
        wait_until(lambda: ledger.recorder._leader is not None)
        interrupt = threading.Timer(0.3, os.kill, (os.getpid(), 2))
        interrupt.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                ledger.record(start(workflow_id="interrupted"))
            others = [pool.submit(record_whole, ledger) for _ in range(5)]
        finally:
            stalled()
        assert leader.result(10).applied
        for other in others:
            other.result(10)


def test_a_leader_that_is_interrupted_in_its_commit_gives_the_others_their_answers(ledger, stalled):
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(ledger.record, make("progress_workflow", workflow_id="w", current_step="a"))
        wait_until(lambda: ledger.recorder._leader is not None)
        timers = [threading.Timer(0.4, stalled), threading.Timer(0.2, os.kill, (os.getpid(), 2))]
        others = []

        def join_later():
            wait_until(lambda: len(ledger.recorder._queue) >= 1)
            others.extend(pool.submit(record_whole, ledger) for _ in range(5))
            for timer in timers:
                timer.start()

        pool.submit(join_later)
        with pytest.raises(KeyboardInterrupt):
            ledger.record(make("progress_workflow", workflow_id="w", current_step="b"))
        assert first.result(10).applied
        wait_until(lambda: len(others) == 5)
        for other in others:
            other.result(10)
    assert ledger.record(complete(workflow_id="w")).applied


@pytest.mark.parametrize("year", [1, 1931, 9999])
def test_a_change_from_an_impossible_time_fails_alone(ledger, year):
    bad = start(workflow_id="bad", at=datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC))
    good = whole_workflow()
    outcomes = ledger.recorder.record_each([*good, bad])
    assert all(outcome.applied for outcome in outcomes[:-1])
    assert isinstance(outcomes[-1], InvalidInput) or outcomes[-1].applied


def test_two_judgements_with_one_id_in_one_batch_leave_one_row_and_one_event(ledger):
    ledger.record(start(workflow_id="w"))
    twins = [make("record_feedback", feedback_id="f", workflow_id="w", name="ok", score=score) for score in (1, 2)]
    first, second = ledger.recorder.record_each(twins)
    assert first.applied
    assert isinstance(second, WorkledgerError)
    with ledger.pool.connection() as connection:
        events = connection.execute("SELECT count(*) FROM events WHERE event_type = 'feedback.recorded'").fetchone()
    assert events == (1,)


def test_the_same_change_twice_in_one_batch_is_one_event(ledger):
    ledger.record(start(workflow_id="w"))
    ledger.record(make("start_conversation", conversation_id="c"))
    changes = [
        make("record_feedback", feedback_id="f", workflow_id="w", name="ok", score=1),
        make("add_message", conversation_id="c", message_id="m", message={"role": "user"}),
        make("record_event", event_type="a.b", entity_type="agent", entity_id="x"),
        make("progress_workflow", workflow_id="w", current_step="s"),
    ]
    outcomes = ledger.recorder.record_each([*changes, *changes])
    assert [outcome.seq for outcome in outcomes] == [None, 1, None, None] * 2
    with ledger.pool.connection() as connection:
        doubled = connection.execute("SELECT event_id FROM events GROUP BY event_id HAVING count(*) > 1").fetchall()
        assert doubled == []
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (1,)


def test_threads_of_a_forked_child_all_get_their_answers(ledger):
    record_whole(ledger)
    stop = threading.Event()

    def load():
        while not stop.is_set():
            record_whole(ledger)
            ledger.workflows(limit=1)

    parents = [threading.Thread(target=load) for _ in range(6)]
    for thread in parents:
        thread.start()
    children = [_forked(ledger) for _ in range(6)]
    statuses = [_wait_for(pid) for pid in children]
    stop.set()
    for thread in parents:
        thread.join(20)
        assert not thread.is_alive()
    assert statuses == [0] * len(children)


def _forked(ledger):
    pid = os.fork()
    if pid:
        return pid
    try:
        threads = [threading.Thread(target=_read_and_record, args=(ledger,), daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        for thread in threads:
            thread.join(max(0.1, deadline - time.monotonic()))
        stuck = sum(thread.is_alive() for thread in threads)
        ledger.close()
        os._exit(min(stuck, 100))
    except BaseException:
        os._exit(101)


def _read_and_record(ledger):
    ledger.workflows(limit=1)
    record_whole(ledger)


def _wait_for(pid):
    for _ in itertools.repeat(None, 4000):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return "hangs"


def test_a_child_that_closes_the_ledger_leaves_the_parents_connections_alone(ledger):
    with ledger.start_workflow("warm"):
        pass
    with ledger.pool.connection() as one, ledger.pool.connection() as two:
        idle = {one.info.backend_pid, two.info.backend_pid}
    pid = os.fork()
    if pid == 0:
        try:
            ledger.close()
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert _wait_for(pid) == 0
    with ledger.pool.connection() as one, ledger.pool.connection() as two:
        assert {one.info.backend_pid, two.info.backend_pid} == idle
    record_whole(ledger)


def test_multiprocessing_by_fork_records_from_every_child(database_url, tmp_path):
    assert run_program("forking", database_url, tmp_path) == "8\n"


def test_a_buffered_change_whose_time_has_no_room_is_counted_and_the_next_is_refused(database_url, tmp_path, caplog):
    from support.proxy import Proxy
    from workledger.errors import SpoolFull

    options = {"home": tmp_path, "durability": "buffered", "buffer_s": 0.5, "spool_limit_bytes": 3_000}
    with Proxy(database_url) as proxy, workledger.open(proxy.url, **options) as ledger:
        ledger.record(start(workflow_id="before"))
        ledger.flush()
        proxy.refuse()
        ledger.recorder._connection.close()
        for n in range(20):
            ledger.record(start(workflow_id=f"w{n}", input="x" * 100))
        ledger.flush()
        assert ledger.tally.refused + ledger.tally.spooled == 20
        assert ledger.tally.refused > 0
        with pytest.raises(SpoolFull):
            ledger.record(start(workflow_id="after", input="x" * 3_000))
        proxy.heal()
        wait_until(lambda: len(ledger.workflows(limit=100)) == 1 + ledger.tally.spooled)


def test_a_repeated_removal_does_not_take_out_a_message_that_came_later(ledger):
    ledger.record(make("start_conversation", conversation_id="c"))
    ledger.conversation("c").add("user", "one")
    removal = make("remove_messages", conversation_id="c", seqs=[1, 2])
    assert ledger.record(removal).applied
    ledger.conversation("c").add("user", "two")
    assert ledger.record(removal).applied is False
    assert [message.seq for message in ledger.messages("c")] == [2]
