"""A worker runs what waits: enqueued workflows, and those that a killed worker left in the middle."""

import os
import subprocess
import sys
import textwrap
import threading

import workledger
from support.waiting import wait_until
from workledger.sdk.worker_loop import WorkerLoop

PROGRAM = textwrap.dedent("""
    import os, sys, workledger
    ledger = workledger.open(lease_s=1)

    def step(n):
        @ledger.task(name=f"step-{n}")
        def run(total):
            if os.environ.get("DIE_AT") == str(n):
                os.kill(os.getpid(), 9)
            return total + n
        return run

    steps = [step(n) for n in range(10)]

    @ledger.workflow
    def adding(total):
        for run in steps:
            total = run(total)
        return total
""")


def test_an_enqueued_workflow_is_pending_until_a_worker_runs_it(ledger):
    @ledger.workflow
    def double(x):
        return 2 * x

    workflow_id = double.enqueue(21)
    assert ledger.get_workflow(workflow_id).status == "pending"
    assert WorkerLoop(ledger).run_until_idle() == 1
    assert ledger.get_workflow(workflow_id).output_data == 42


def test_coroutine_workflows_are_run_too(ledger):
    @ledger.workflow
    async def double(x):
        return 2 * x

    workflow_id = double.enqueue(4)
    WorkerLoop(ledger).run_until_idle()
    assert ledger.get_workflow(workflow_id).output_data == 8


def test_two_workers_take_each_workflow_once(ledger, database_url, tmp_path):
    ran = []

    def register(one):
        @one.workflow
        def job(n):
            ran.append(n)

        return job

    with workledger.open(database_url, home=tmp_path / "other") as other:
        jobs = register(ledger)
        register(other)
        for n in range(30):
            jobs.enqueue(n)
        threads = [threading.Thread(target=WorkerLoop(one).run_until_idle) for one in (ledger, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert sorted(ran) == list(range(30))
    assert {workflow.status for workflow in ledger.workflows()} == {"completed"}


def test_a_failure_of_the_workflows_own_is_not_tried_again(ledger):
    @ledger.workflow
    def failing():
        raise ValueError("no")

    workflow_id = failing.enqueue()
    assert WorkerLoop(ledger).run_until_idle() == 1
    assert WorkerLoop(ledger).run_until_idle() == 0
    assert ledger.get_workflow(workflow_id).status == "failed"


def test_a_worker_killed_at_any_step_is_followed_by_one_that_goes_on(ledger, database_url, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {
        **os.environ,
        "WORKLEDGER_DATABASE_URL": database_url,
        "WORKLEDGER_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(tmp_path),
    }
    change = "import program; program.adding.options(workflow_id='w').enqueue(100)"
    subprocess.run([sys.executable, "-c", change], env=environment, check=True, cwd=tmp_path)
    command = [sys.executable, "-m", "workledger", "worker", "program", "--until-idle"]
    for step in (0, 4, 9):
        died = run(command, {**environment, "DIE_AT": str(step)}, tmp_path)
        assert died.returncode == -9, died.stderr
        with ledger.pool.connection() as connection:
            wait_until(lambda c=connection: lease_is_over(c))
    last = run(command, environment, tmp_path)
    assert last.returncode == 0, last.stderr
    workflow = ledger.get_workflow("w")
    assert (workflow.status, workflow.output_data, workflow.completed_steps) == ("completed", 145, 10)
    completed = [row.task_name for row in ledger.executions("w") if row.status == "completed"]
    assert completed == [f"step-{n}" for n in range(10)]


def run(command, environment, folder):
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120)


def lease_is_over(connection):
    return connection.execute(
        "SELECT NOT EXISTS (SELECT FROM workflows w JOIN workers k USING (worker_id) WHERE w.status = 'running'"
        " AND k.stopped_at IS NULL AND k.lost_at IS NULL AND k.heartbeat_at > now() - k.lease_s * interval '1 second')"
    ).fetchone()[0]
