"""What Workledger promises, as a dozen small programs. Read it from top to bottom."""

import json
import os
import subprocess
import sys

import psycopg
import pytest

import workledger
from support.proxy import Proxy
from support.waiting import wait_until
from workledger.assembly import verify, wait_for_consumers
from workledger.errors import Conflict, InvalidInput
from workledger.log.follow import follow
from workledger.log.sequencer import sequence
from workledger.settings import load_settings


@pytest.fixture
def settings(database_url, tmp_path):
    """The settings of a project of its own, with everything it keeps in one folder."""
    return load_settings(
        database_url=database_url,
        home=tmp_path / "home",
        synapse_url="postgres:",
        training_url=f"file:{tmp_path / 'training'}",
    )


@pytest.fixture
def sql(ledger):
    """Plain SQL over what was recorded."""

    def sql(query, *parameters):
        with ledger.pool.connection() as connection:
            return connection.execute(query, parameters).fetchall()

    return sql


# -- recording ----------------------------------------------------------------------------------------------------


def test_functions_are_recorded_by_decorating_them(ledger):
    @ledger.tool
    def search(query):
        return [f"{query} in practice", f"{query} in theory"]

    @ledger.task
    def summarise(hits):
        return "; ".join(hits)

    @ledger.workflow(version="1")
    def research(topic):
        return summarise(search(topic))

    assert research("event logs") == "event logs in practice; event logs in theory"

    (workflow,) = ledger.workflows()
    assert (workflow.name, workflow.status) == ("research", "completed")
    steps = ledger.executions(workflow.workflow_id)
    assert [(step.task_name, step.kind, step.status) for step in steps] == [
        ("search", "tool", "completed"),
        ("summarise", "task", "completed"),
    ]
    assert steps[1].input_data == {"hits": ["event logs in practice", "event logs in theory"]}


def test_blocks_are_recorded_by_handles(ledger):
    with ledger.start_workflow("import", workflow_id="2026-11-24", tags=["nightly"]) as run:
        with run.task("load", input="a.csv") as task:
            task.output = 3
        run.message("assistant", "Three rows are in.")
        run.feedback("helpful", score=1)
        run.output = {"rows": 3}

    assert ledger.get_workflow("2026-11-24").output_data == {"rows": 3}
    assert [message.body["content"] for message in ledger.messages("2026-11-24")] == ["Three rows are in."]
    assert ledger.find(tag="nightly")[0].workflow_id == "2026-11-24"


def test_a_failure_is_recorded_and_goes_on_unchanged(ledger):
    with pytest.raises(ZeroDivisionError), ledger.start_workflow("w", workflow_id="w") as run, run.task("divide"):
        raise ZeroDivisionError("nothing to divide by")
    assert ledger.get_workflow("w").status == "failed"
    (step,) = ledger.failed_executions()
    assert (step.error_type, step.error) == ("ZeroDivisionError", "nothing to divide by")


def test_a_row_and_the_event_that_explains_it_commit_together_with_your_own(ledger, database_url, sql):
    def recorded():
        return sql("SELECT (SELECT count(*) FROM workflows), (SELECT count(*) FROM events WHERE workflow_id = 'w')")

    with psycopg.connect(database_url) as own:
        own.execute("CREATE TABLE orders (id text)")
        with ledger.joining(own), ledger.start_workflow("w", workflow_id="w"):
            own.execute("INSERT INTO orders VALUES ('order-1')")
        assert recorded() == [(0, 0)]
        own.commit()
    assert recorded() == [(1, 2)]


def test_an_interrupted_workflow_goes_on_where_it_stopped(ledger):
    ran = []

    @ledger.task
    def step(name):
        ran.append(name)
        if ran == ["first", "second"]:
            raise ConnectionError("interrupted")
        return name

    @ledger.workflow
    def two_steps():
        return [step("first"), step("second")]

    with pytest.raises(ConnectionError):
        two_steps.options(workflow_id="w")()
    assert two_steps.options(workflow_id="w")() == ["first", "second"]
    assert ran == ["first", "second", "second"]


def test_what_cannot_be_kept_is_refused_and_what_is_odd_is_kept_as_it_was(ledger):
    with pytest.raises(InvalidInput, match="workflow_id"):
        ledger.start_workflow("w", workflow_id="line\nbreak")
    odd = {"nul": "a\0b", "half a pair": "\ud83d", "not a number": float("inf"), "big": 2**200}
    with ledger.start_workflow("w", workflow_id="w", input=odd):
        pass
    assert ledger.get_workflow("w").input_data == odd
    with pytest.raises(Conflict), ledger.start_workflow("w", workflow_id="w"):
        pass  # the id is taken, and its workflow is completed


def test_work_of_a_process_that_died_is_not_shown_as_running(ledger, database_url, tmp_path):
    program = (
        "import os, sys, workledger\n"
        "ledger = workledger.open(sys.argv[1], home=sys.argv[2], lease_s=0.5)\n"
        "ledger.start_workflow('w', workflow_id='w').__enter__()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program, database_url, tmp_path], timeout=60)
    wait_until(lambda: ledger.running() == [])


def test_the_recorded_program_goes_on_while_postgresql_is_away(database_url, tmp_path):
    with Proxy(database_url) as proxy, workledger.open(proxy.url, home=tmp_path) as ledger:
        with ledger.start_workflow("w", workflow_id="w") as run:
            proxy.refuse()
            with run.task("t"):
                pass
        assert ledger.tally.spooled == 3
        proxy.heal()
        wait_until(lambda: ledger.get_workflow("w").status == "completed", timeout_s=30)


# -- the log and what is made from it --------------------------------------------------------------------------------


def record_some(ledger):
    for n in range(3):
        with ledger.start_workflow("w", workflow_id=f"w{n}") as run, run.task("t", input=n) as task:
            task.output = n * n
    return 3


def test_every_event_has_one_place_in_one_order(ledger, sql):
    record_some(ledger)
    with ledger.pool.connection() as connection:
        sequence(connection, schema="workledger")
    positions = [position for (position,) in sql("SELECT position FROM event_positions ORDER BY position")]
    assert positions == list(range(1, len(positions) + 1))
    mine = sql(
        "SELECT event_type FROM events JOIN event_positions USING (event_id) WHERE workflow_id = 'w0' ORDER BY position"
    )
    assert [event_type for (event_type,) in mine] == [
        "workflow.started",
        "task.started",
        "task.completed",
        "workflow.completed",
    ]


def test_nobody_changes_an_event(ledger, sql):
    record_some(ledger)
    for change in ("UPDATE events SET payload = '{}'", "DELETE FROM events", "TRUNCATE events"):
        with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
            sql(change)


def test_the_state_is_what_the_log_says(settings, ledger, sql):
    record_some(ledger)

    def faults():
        return [fault for check in verify(settings, names=["state"]) for fault in check.faults]

    assert faults() == []
    with ledger.pool.connection() as connection:
        connection.execute("UPDATE workflows SET output_data = '42' WHERE workflow_id = 'w1'")  # behind our back
    assert "w1" in str(faults()[0])


def test_the_log_is_a_stream(ledger):
    record_some(ledger)
    with ledger.pool.connection() as connection:
        stream = follow(connection, schema="workledger", after=0, idle_s=0, poll_s=0.01)
        completed = [event.entity_id for event in stream if event.event_type == "workflow.completed"]
    assert completed == ["w0", "w1", "w2"]


def test_finished_work_becomes_training_lines_metrics_and_seals_that_equal_the_log(settings, ledger, sql, tmp_path):
    count = record_some(ledger)
    wait_for_consumers(settings)

    (file,) = (tmp_path / "training" / "tasks").glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["input_data"], line["output_data"]) for line in lines] == [(0, 0), (1, 1), (2, 4)]

    query = "SELECT value FROM metric_counters WHERE name = 'workledger_workflows_total' AND 'completed' = ANY (labels)"
    assert [int(value) for (value,) in sql(query)] == [count]

    assert [fault for check in verify(settings) for fault in check.faults] == []
    os.truncate(file, 10)
    assert [fault for check in verify(settings, names=["training"]) for fault in check.faults] != []
