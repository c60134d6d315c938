"""Live workers keep their work through outages and jumps of clocks; one that was paused learns that it lost it."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import workledger
from support.changes import make, start, task
from support.proxy import Proxy
from support.waiting import wait_until
from workledger.errors import DatabaseUnavailable, Superseded
from workledger.flows.reap import Reaper, reap
from workledger.model.clock import SystemClock
from workledger.operational import reads


class HandClock(SystemClock):
    """A monotonic clock that a test moves."""

    def __init__(self):
        self.at_s = 1000.0

    def monotonic_s(self):
        return self.at_s


def workers(ledger, column="lost_at"):
    with ledger.pool.connection() as connection:
        return dict(connection.execute(f"SELECT worker_id, {column} IS NOT NULL FROM workers").fetchall())


@pytest.fixture
def silent(ledger):
    """A worker that runs a workflow, and whose lease of 30 s passed an hour ago by the server's clock."""
    ledger.record(make("change_worker", event_type="worker.started", worker_id="k", lease_s=30.0))
    ledger.record(start(workflow_id="w", worker_id="k"))
    with ledger.pool.connection() as connection:
        connection.execute("UPDATE workers SET heartbeat_at = now() - interval '1 hour' WHERE worker_id = 'k'")
    return "k"


class Looking:
    """A reaper that looks when its clock says so."""

    def __init__(self, ledger, pause_s=10.0):
        self.clock = HandClock()
        self._pool = ledger.pool
        self._reaper = Reaper(ledger.recorder, clock=self.clock, pause_s=pause_s)

    def after(self, seconds):
        self.clock.at_s += seconds
        with self._pool.connection() as connection:
            return self._reaper.reap_once(connection)


def test_a_reaper_watches_a_silent_worker_for_its_lease_before_it_declares_it_lost(ledger, silent):
    looking = Looking(ledger)
    assert [looking.after(10) for _ in range(4)] == [0, 0, 0, 2]
    assert workers(ledger) == {silent: True}
    assert ledger.get_workflow("w").error_type == "WorkerLost"


def test_a_reaper_that_was_out_of_touch_hears_everybody_first(ledger, silent):
    looking = Looking(ledger)
    assert [looking.after(10) for _ in range(3)] == [0, 0, 0]
    assert looking.after(3600) == 0
    assert [looking.after(10) for _ in range(3)] == [0, 0, 2]


def test_a_jump_of_the_servers_clock_costs_no_live_worker_its_work(ledger, silent):
    """By the server's clock each heartbeat is an hour old at once, but it moves."""
    looking = Looking(ledger)
    for minute in range(10):
        assert looking.after(10) == 0
        with ledger.pool.connection() as connection:
            connection.execute(
                "UPDATE workers SET heartbeat_at = now() - interval '1 hour' + %s * interval '1 s'", (minute,)
            )
    assert workers(ledger) == {silent: False}


def test_a_heartbeat_between_the_look_and_the_verdict_saves_the_worker_and_its_work(ledger, silent, monkeypatch):
    looked = reads.watched_workers

    def look_and_then_hear(connection):
        found = looked(connection)
        assert reads.heartbeat(connection, silent) == "alive"
        return found

    monkeypatch.setattr(reads, "watched_workers", look_and_then_hear)
    with ledger.pool.connection() as connection:
        assert reap(connection, ledger.recorder, clock=ledger.clock) == 0
    assert workers(ledger) == {silent: False}
    assert ledger.get_workflow("w").status == "running"


def test_an_outage_longer_than_the_lease_costs_no_live_worker_its_work(database_url, tmp_path):
    clock, clock_of_late = HandClock(), HandClock()
    with Proxy(database_url) as proxy:
        ledgers = [workledger.open(proxy.url, home=tmp_path / f"home-{n}", lease_s=1, clock=clock) for n in range(3)]
        runs = [one.start_workflow("w", workflow_id=f"w{n}") for n, one in enumerate(ledgers)]
        for run in runs:
            run.__enter__()
        proxy.refuse()
        clock.at_s += 3600
        with workledger.open(database_url, home=tmp_path / "late", lease_s=1, clock=clock_of_late) as late:
            with late.pool.connection() as connection:
                connection.execute("UPDATE workers SET heartbeat_at = heartbeat_at - interval '1 hour'")
            looks = counted_looks(late)
            late.worker_id  # noqa: B018  it comes when the others are silent, and looks at once
            wait_until(lambda: looks)
            proxy.heal()
            for _ in range(2):  # longer than the lease
                wait_for_all_hearts(late)
                clock_of_late.at_s += 0.6
                wait_for_two_more(looks)
            assert [late.get_workflow(f"w{n}").status for n in range(3)] == ["running"] * 3
            for run in reversed(runs):
                run.__exit__(None, None, None)
            wait_until(lambda: [late.get_workflow(f"w{n}").status for n in range(3)] == ["completed"] * 3)
            assert not any(workers(late).values())
        for one in ledgers:
            one.close()


def heartbeats(ledger):
    with ledger.pool.connection() as connection:
        return connection.execute("SELECT worker_id, heartbeat_at FROM workers").fetchall()


def wait_for_all_hearts(ledger):
    before = heartbeats(ledger)
    wait_until(lambda: not set(before) & set(heartbeats(ledger)))


def wait_for_two_more(looks):
    """The first may have begun before."""
    before = len(looks)
    wait_until(lambda: len(looks) >= before + 2)


def counted_looks(ledger):
    """One entry for each time that this ledger has looked for the dead."""
    reaper, looks = ledger._worker._reaper, []
    reap_once = reaper.reap_once

    def counted(connection):
        looks.append(reap_once(connection))

    reaper.reap_once = counted
    return looks


def test_a_worker_whose_start_still_waits_in_the_spool_keeps_its_id(database_url, tmp_path, monkeypatch):
    monkeypatch.setattr("workledger.sdk.scribe._RETRY_S", 2.0)  # the heartbeat comes before the replay
    with Proxy(database_url) as proxy, workledger.open(proxy.url, home=tmp_path) as ledger:
        proxy.refuse()
        with ledger.start_workflow("w", workflow_id="w"):
            first = ledger.worker_id
            proxy.heal()
            ledger._worker.beat_once()
            assert ledger.worker_id == first
            wait_until(lambda: workers(ledger) == {first: False})
            ledger._worker.beat_once()
            assert ledger.worker_id == first
            assert [workflow.workflow_id for workflow in ledger.running()] == ["w"]


def test_a_heartbeat_that_gets_no_answer_does_not_hold_up_who_goes_on_recording(database_url, tmp_path, monkeypatch):
    begun, answered = threading.Event(), threading.Event()

    def unanswered(*_):
        begun.set()
        assert answered.wait(60)
        return "alive"

    clock, waited = HandClock(), []
    with workledger.open(database_url, home=tmp_path, lease_s=0.3, clock=clock) as ledger:
        first = ledger.worker_id
        with monkeypatch.context() as slow:
            slow.setattr(reads, "heartbeat", unanswered)
            slow.setattr("workledger.sdk.worker.Worker._catch_up", lambda _: waited.append(clock.at_s))
            assert begun.wait(30)
            for _ in range(10):
                clock.at_s += 0.2
                assert ledger.worker_id == first
            assert waited == []
            clock.at_s += 0.4  # nothing for longer than the lease
            assert ledger.worker_id == first
            assert waited == [clock.at_s]
            answered.set()


def test_a_heartbeat_that_was_sent_before_a_pause_does_not_answer_for_the_time_after(ledger, monkeypatch):
    worker, heard = ledger._worker, reads.heartbeat
    first = ledger.worker_id
    under_way, paused = threading.Event(), threading.Event()

    def heard_and_then_paused(connection, worker_id):
        answer = heard(connection, worker_id)
        under_way.set()
        assert paused.wait(60)
        return answer

    with monkeypatch.context() as pausing:
        pausing.setattr(reads, "heartbeat", heard_and_then_paused)
        worker._wake.set()
        assert under_way.wait(30)
    with ledger.pool.connection() as connection:
        connection.execute("UPDATE workers SET heartbeat_at = now() - interval '1 hour'")
        reap(connection, ledger.recorder, clock=ledger.clock)
    monkeypatch.setattr("workledger.sdk.worker._CATCH_UP_S", 60.0)
    worker._awake_s -= 3600
    asked = worker._asked
    with ThreadPoolExecutor(1) as pool:
        now = pool.submit(lambda: ledger.worker_id)
        wait_until(lambda: worker._asked > asked)
        paused.set()
        assert now.result(60) != first


PAUSED = textwrap.dedent("""
    import sys, workledger
    from workledger.errors import WorkledgerError
    ledger = workledger.open(sys.argv[1], home=sys.argv[2], lease_s=1)
    run = ledger.start_workflow("w", workflow_id="w")
    run.__enter__()
    task = run.task("t")
    task.__enter__()
    print("ready", flush=True)
    sys.stdin.readline()
    for name, write in [
        ("progress", lambda: run.progress(current_step="x")),
        ("next task", lambda: run.task("u").__enter__()),
        ("end of task", lambda: task.__exit__(None, None, None)),
        ("end of workflow", lambda: run.__exit__(None, None, None)),
    ]:
        try:
            write()
            print(name, "went through", flush=True)
        except WorkledgerError as error:
            print(name, type(error).__name__, flush=True)
    with ledger.start_workflow("new", workflow_id="new") as new:
        with new.task("t"):
            pass
        print(ledger.get_workflow("new").worker_id, flush=True)
""")


def test_a_process_that_was_paused_beyond_its_lease_is_told_and_begins_anew(ledger, database_url, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", PAUSED, database_url, str(tmp_path / "paused")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        first = ledger.get_workflow("w").worker_id
        os.kill(process.pid, signal.SIGSTOP)
        looking = threading.Event()

        def reaped():
            with ledger.pool.connection() as connection:
                reap(connection, ledger.recorder, clock=ledger.clock)
            return workers(ledger)[first] or looking.wait(0.1)

        wait_until(reaped)
        os.kill(process.pid, signal.SIGCONT)
        output, _ = process.communicate("go\n", timeout=120)
    finally:
        process.kill()
        process.communicate()
    *told, new_worker = output.splitlines()
    assert told == [f"{name} Superseded" for name in ("progress", "next task", "end of task", "end of workflow")]
    assert new_worker != first
    assert ledger.get_workflow("new").status == "completed"


# -- taking over --------------------------------------------------------------------------------------------------


def left_running(ledger):
    """A workflow of a worker that has ended, with one task completed and one running."""
    ledger.record(make("change_worker", event_type="worker.started", worker_id="k"))
    ledger.record(start(workflow_id="w", worker_id="k"))
    ledger.record(task(workflow_id="w", execution_id="a", step_key="t", worker_id="k"))
    ledger.record(make("complete_execution", workflow_id="w", execution_id="a", output=1))
    ledger.record(task(workflow_id="w", execution_id="b", step_key="t#2", worker_id="k"))
    ledger.record(make("change_worker", event_type="worker.stopped", worker_id="k"))


def test_who_takes_over_fails_what_the_old_attempt_left_running(ledger):
    left_running(ledger)
    with ledger.start_workflow("w", workflow_id="w") as run:
        assert run.attempt == 2
        left = {execution.execution_id: execution for execution in ledger.executions("w")}
        assert (left["a"].status, left["b"].status, left["b"].error_type) == ("completed", "failed", "Superseded")
        with pytest.raises(Superseded):
            ledger.record(make("complete_execution", workflow_id="w", execution_id="b", output=2))


def test_who_takes_over_late_leaves_alone_what_its_successor_runs(ledger):
    left_running(ledger)
    with ledger.start_workflow("w", workflow_id="w") as run, run.task("mine"), ledger.pool.connection() as connection:
        assert reads.left_behind(connection, "w", attempt=1) == []


def test_what_ended_before_the_workflow_was_taken_over_is_not_done_again(ledger, monkeypatch):
    """The old worker completes its last task just as the workflow is resumed elsewhere."""
    left_running(ledger)
    claim = ledger.claim

    def complete_and_claim(change):
        ledger.record(make("complete_execution", workflow_id="w", execution_id="b", output=2))
        return claim(change)

    monkeypatch.setattr(ledger, "claim", complete_and_claim)
    with ledger.start_workflow("w", workflow_id="w") as run:
        steps = [run.recorded.take(key, input_digest=None) for key in ("t", "t#2")]
        assert [step.output_data for step in steps] == [1, 2]


@pytest.mark.parametrize("durability", ["commit", "buffered"])
def test_a_claim_is_committed_or_refused_and_never_spooled(database_url, tmp_path, durability, monkeypatch):
    monkeypatch.setattr("workledger.sdk.scribe._CLAIM_S", 0.1)
    with Proxy(database_url) as proxy, workledger.open(proxy.url, home=tmp_path, durability=durability) as ledger:

        @ledger.workflow
        def job():
            return 1

        workflow_id = job.enqueue()
        change = make("resume_workflow", workflow_id=workflow_id, attempt=1, worker_id=ledger.worker_id)
        ledger.flush()
        proxy.refuse()
        with pytest.raises(DatabaseUnavailable):
            ledger.claim(change)
        with pytest.raises(DatabaseUnavailable):
            ledger.resume(workflow_id)
        proxy.heal()
        wait_until(lambda: ledger.get_workflow(workflow_id).status == "pending")
        monkeypatch.setattr("workledger.sdk.scribe._CLAIM_S", 60.0)
        assert ledger.resume(workflow_id) == 1
        ledger.flush()
        wait_until(lambda: ledger.get_workflow(workflow_id).status == "completed")


def test_a_claim_whose_owner_cannot_read_on_is_given_up(ledger, monkeypatch):
    left_running(ledger)

    def unreadable(*_):
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as broken:
        broken.setattr(reads, "recorded_steps", unreadable)
        with pytest.raises(DatabaseUnavailable):
            ledger.start_workflow("w", workflow_id="w").__enter__()
    assert ledger.get_workflow("w").error_type == "WorkerLost"
    with ledger.pool.connection() as connection:
        assert reads.resumable(connection, ["w"], limit=5) == [("w", "w")]
    with ledger.start_workflow("w", workflow_id="w") as run:
        assert run.attempt == 3
