"""Group commit under attack: whatever happens to the caller that leads, every other caller gets its answer."""

import itertools
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
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
def locked(ledger, database_url):
    """Make a workflow whose row somebody else locks; gives the way to let go of it."""
    with ExitStack() as stack:

        def locked(workflow_id):
            ledger.record(start(workflow_id=workflow_id))
            other = stack.enter_context(psycopg.connect(database_url, options="-csearch_path=workledger"))
            other.execute("SELECT FROM workflows WHERE workflow_id = %s FOR UPDATE", (workflow_id,))
            return other.rollback

        yield locked


@pytest.fixture
def waits_for_a_lock(database_url):
    with psycopg.connect(database_url, autocommit=True) as observer:
        query = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        yield lambda: observer.execute(query).rowcount


def step_of(workflow_id):
    return make("progress_workflow", workflow_id=workflow_id, current_step="s")


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_ctrl_c_in_the_main_thread_leaves_no_other_caller_without_an_answer(database_url, tmp_path, rounds):
    # The driver warns of what it finds half done.
    assert int(run_program("interrupted", database_url, tmp_path, rounds, may_complain=True)) > 0


def test_a_caller_that_is_interrupted_while_it_waits_does_not_hold_up_the_others(ledger, locked):
    release = locked("w")
    with ThreadPoolExecutor(8) as pool:
        leader = pool.submit(ledger.record, step_of("w"))
        wait_until(lambda: ledger.recorder._leader is not None and not ledger.recorder._queue)

        def interrupt_who_waits():
            wait_until(lambda: ledger.recorder._queue)
            interrupt()

        interrupting = pool.submit(interrupt_who_waits)
        try:
            with pytest.raises(KeyboardInterrupt):
                ledger.record(start(workflow_id="interrupted"))
                raise AssertionError("not interrupted")
            others = [pool.submit(record_whole, ledger) for _ in range(5)]
        finally:
            release()
        interrupting.result(60)
        assert leader.result(60).applied
        for other in others:
            other.result(60)


def test_a_leader_that_is_interrupted_in_its_commit_gives_the_others_their_answers(ledger, locked, waits_for_a_lock):
    """The first leader hands on to the main thread, whose batch has the changes of the others, too."""
    release_first, release_main = locked("first"), locked("main")
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(ledger.record, step_of("first"))
        wait_until(waits_for_a_lock)

        def have_the_main_thread_lead_and_interrupt_it():
            queue = ledger.recorder._queue
            wait_until(lambda: len(queue) == 1)
            others = [pool.submit(ledger.record, start(workflow_id=f"other-{n}")) for n in range(5)]
            wait_until(lambda: len(queue) == 6)
            release_first()
            wait_until(lambda: not queue and waits_for_a_lock())
            interrupt()
            return others

        attack = pool.submit(have_the_main_thread_lead_and_interrupt_it)
        with pytest.raises(KeyboardInterrupt):
            ledger.record(step_of("main"))
            raise AssertionError("not interrupted")
        release_main()
        assert first.result(60).applied
        for other in attack.result(60):
            assert other.result(60).applied
    assert ledger.record(complete(workflow_id="main")).applied


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
        thread.join(90)
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
        deadline = time.monotonic() + 90
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
    for _ in itertools.repeat(None, 12_000):
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

    options = {"home": tmp_path, "durability": "buffered", "buffer_s": 60, "spool_limit_bytes": 3_000}
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
