"""Status is truthful: work of a dead worker ends, and a worker that was away cannot complete what was taken from it."""

import subprocess
import sys
import textwrap

import pytest

import workledger
from support.waiting import wait_until
from workledger.errors import InvalidTransition, Superseded
from workledger.flows.reap import reap


def events(ledger, event_type):
    with ledger.pool.connection() as connection:
        return connection.execute("SELECT entity_id FROM events WHERE event_type = %s", (event_type,)).fetchall()


def expire(ledger, worker_id):
    with ledger.pool.connection() as connection:
        connection.execute(
            "UPDATE workers SET heartbeat_at = now() - interval '1 hour' WHERE worker_id = %s", (worker_id,)
        )


def reap_now(ledger):
    with ledger.pool.connection() as connection:
        return reap(connection, ledger.recorder, clock=ledger.clock)


def test_a_process_is_one_worker_for_all_its_work(ledger):
    for _ in range(3):
        with ledger.start_workflow("w"):
            pass
    assert len(events(ledger, "worker.started")) == 1


def test_a_killed_process_stops_being_running_within_its_lease(database_url, tmp_path):
    source = textwrap.dedent("""
        import os, sys, workledger
        ledger = workledger.open(sys.argv[1], home=sys.argv[2], lease_s=1)
        with ledger.start_workflow("doomed", workflow_id="w") as run, run.task("t"):
            os.kill(os.getpid(), 9)
    """)
    subprocess.run([sys.executable, "-c", source, database_url, str(tmp_path)], timeout=120)
    with workledger.open(database_url, home=tmp_path, lease_s=1) as ledger:
        with ledger.start_workflow("other"):
            wait_until(lambda: ledger.get_workflow("w").status == "failed")
        assert ledger.get_workflow("w").error_type == "WorkerLost"
        assert ledger.executions("w")[0].error_type == "WorkerLost"
        assert len(events(ledger, "worker.lost")) == 1


def test_running_does_not_show_work_of_a_worker_beyond_its_lease(ledger):
    with ledger.start_workflow("w", workflow_id="w"):
        assert [workflow.workflow_id for workflow in ledger.running()] == ["w"]
        expire(ledger, ledger.worker_id)
        assert ledger.running() == []


def test_a_paused_worker_cannot_complete_what_was_reaped(ledger):
    with pytest.raises(InvalidTransition), ledger.start_workflow("w", workflow_id="w") as run:
        with pytest.raises(Superseded, match="taken over while this worker was away"), run.task("t"):
            expire(ledger, ledger.worker_id)
            assert reap_now(ledger) == 3
    assert ledger.get_workflow("w").error_type == "WorkerLost"


def test_several_reapers_report_a_loss_once(ledger, database_url, tmp_path):
    run = ledger.start_workflow("w", workflow_id="w")
    run.__enter__()
    expire(ledger, ledger.worker_id)
    with workledger.open(database_url, home=tmp_path / "other") as other:
        assert sorted([reap_now(ledger), reap_now(other), reap_now(ledger)]) == [0, 0, 2]
    assert len(events(ledger, "worker.lost")) == 1
    run._place.leave()


def test_a_worker_that_missed_its_lease_goes_on_under_a_new_id(ledger):
    first = ledger.worker_id
    expire(ledger, first)
    reap_now(ledger)
    ledger._worker.beat_once()
    assert ledger.worker_id != first
    with ledger.start_workflow("after", workflow_id="after"):
        pass
    assert ledger.get_workflow("after").status == "completed"


def test_a_worker_that_closes_is_stopped(database_url, tmp_path):
    with workledger.open(database_url, home=tmp_path) as ledger, ledger.start_workflow("w"):
        pass
    with workledger.open(database_url, home=tmp_path) as ledger:
        assert len(events(ledger, "worker.stopped")) == 1


def test_cancel_is_seen_at_the_next_task_boundary(ledger):
    from workledger.errors import WorkflowCancelled

    ran = []

    @ledger.task
    def step(n):
        ran.append(n)
        if n == 2:
            ledger.cancel("w", reason="enough")

    @ledger.workflow
    def counting():
        for n in range(10):
            step(n)

    with pytest.raises(WorkflowCancelled):
        counting.options(workflow_id="w")()
    assert ran == [0, 1, 2]
    assert ledger.get_workflow("w").status == "cancelled"
