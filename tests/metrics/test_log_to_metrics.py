"""Promise 11: metrics equal the log."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from support import wait_until
from support.requirements import REPOSITORY
from workledger.errors import StoreCorrupted
from workledger.flows.log_to_metrics import CONSUMER, catch_up, recompute, verify_metrics
from workledger.log import consumers, reader
from workledger.log.sequencer import sequence
from workledger.metrics import store
from workledger.metrics.instruments import EVENTS, WORKFLOWS
from workledger.metrics.tally import EXACT
from workledger.model import change
from workledger.model.change import Usage
from workledger.model.status import Kind
from workledger.postgres.connection import connect


def test_counters_equal_sql_over_the_state_tables_and_the_events(any_project):
    project = any_project
    project.mixed_work()
    project.settle()

    def shown(name, *, but=()):
        rows = project.sql("SELECT labels, value FROM metric_counters WHERE name = %s", name)
        return {tuple(labels): int(value) for labels, value in rows if not set(but) & set(labels)}

    def counted(query):
        return {tuple(labels): count for labels, count in project.sql(query)}

    finished = "status IN ('completed', 'failed', 'cancelled')"
    assert shown("workledger_task_executions_total", but=["running"]) == counted(
        f"SELECT ARRAY[kind, task_name, status], count(*) FROM task_executions WHERE {finished} GROUP BY 1"
    )
    assert shown("workledger_task_executions_total", but=["completed", "failed", "cancelled"]) == counted(
        "SELECT ARRAY[kind, task_name, 'running'], count(*) FROM task_executions GROUP BY 1"
    )
    assert shown("workledger_task_retries_total") == counted(
        "SELECT ARRAY[kind, task_name], count(*) FROM task_executions WHERE retry_count > 0 GROUP BY 1"
    )
    assert shown("workledger_messages_total") == counted("SELECT ARRAY[role], count(*) FROM messages GROUP BY 1")
    assert shown("workledger_feedback_total") == counted("SELECT ARRAY[name], count(*) FROM feedback GROUP BY 1")
    assert shown("workledger_events_total") == counted("SELECT ARRAY[event_type], count(*) FROM events GROUP BY 1")
    assert shown("workledger_workflows_total") == counted(
        """SELECT ARRAY[w.name, CASE split_part(event_type, '.', 2)
               WHEN 'created' THEN 'pending' WHEN 'started' THEN 'running' WHEN 'resumed' THEN 'running'
               ELSE split_part(event_type, '.', 2) END], count(*)
           FROM events e JOIN workflows w ON w.workflow_id = e.entity_id
           WHERE e.entity_type = 'workflow' AND starts_with(event_type, 'workflow.') GROUP BY 1"""
    )
    assert shown("workledger_failures_total") == counted(
        """SELECT ARRAY[entity_type, payload ->> 'error_type'], count(*) FROM events
           WHERE event_type IN ('workflow.failed', 'task.failed') GROUP BY 1"""
    )


def test_tokens_cost_and_durations_equal_sql_to_the_last_digit(project):
    project.mixed_work()
    project.settle()
    assert dict(
        project.sql("SELECT labels[1], value FROM metric_counters WHERE name = 'workledger_cost_usd_total'")
    ) == {
        "execution": project.one("SELECT sum(round(cost_usd, 15)) FROM task_executions"),
        "message": project.one("SELECT sum(cost_usd) FROM messages"),
    }
    tokens = project.sql("SELECT labels, value FROM metric_counters WHERE name = 'workledger_tokens_total'")
    assert {tuple(labels): int(value) for labels, value in tokens} == {
        ("execution", "input", "gpt-x"): project.one("SELECT sum(input_tokens)::int FROM task_executions"),
        ("execution", "output", "gpt-x"): project.one("SELECT sum(output_tokens)::int FROM task_executions"),
        ("message", "input", "gpt-y"): project.one("SELECT sum(input_tokens)::int FROM messages"),
        ("message", "output", "gpt-y"): project.one("SELECT sum(output_tokens)::int FROM messages"),
    }
    for name, event_types in (
        ("workledger_task_duration_seconds", ["task.completed", "task.failed", "task.cancelled"]),
        ("workledger_workflow_duration_seconds", ["workflow.completed", "workflow.failed", "workflow.cancelled"]),
    ):
        assert project.sql(
            "SELECT sum(observations)::int, sum(total) FROM metric_histograms WHERE name = %s", name
        ) == project.sql(
            """SELECT count(*), sum(round((payload ->> 'execution_time_ms')::numeric * 0.001, 12))
               FROM events WHERE event_type = ANY (%s)""",
            event_types,
        )


def test_a_duration_on_the_bound_of_a_bucket_is_in_that_bucket(project):
    workflow_id = project.running_workflow()
    for took_ms in (0, 1, 5, 100, 100.0001, 3_600_000, 3_600_001):
        project.record(project.execution(workflow_id, took_ms=took_ms))
    project.record(project.execution(workflow_id, took_ms=None))
    project.settle()
    rows = project.sql(
        "SELECT upper_bound, observations FROM metric_histograms WHERE labels = '{task,search}' ORDER BY upper_bound"
    )
    assert rows == [(0.001, 2), (0.005, 1), (0.1, 1), (0.25, 1), (3600.0, 1), (float("inf"), 1)]


def test_the_numbers_are_the_same_however_the_log_is_cut_into_batches(project):
    project.mixed_work(workflows=20)
    project.record([project.event(f"own.{n}") for n in range(150)])
    sequence(project.connection, schema=project.schema)
    whole = recompute(project.connection)
    expected = project.tables()
    rng = random.Random(3)
    for batch in (1, 7, 100, whole):
        store.remove_all(project.connection)
        project.sql("UPDATE consumers SET position = 0 WHERE name = %s RETURNING 1", CONSUMER)
        counted = catch_up(project.connection, limit=rng.randrange(whole), batch=batch)
        counted += catch_up(project.connection, batch=batch)
        assert counted == whole
        assert project.tables() == expected


def test_recomputing_gives_the_tables_that_counting_gave(project):
    for seed in range(3):
        project.mixed_work(workflows=6, seed=seed)
        project.settle()
    counted = project.tables()
    assert recompute(project.connection, batch=50) == reader.head(project.connection)[0]
    assert project.tables() == counted
    assert verify_metrics(project.connection).findings == ()


def test_recomputing_takes_the_cursor_to_the_head_and_counting_goes_on_from_there(project):
    project.mixed_work(workflows=3)
    sequence(project.connection, schema=project.schema)
    head = recompute(project.connection)
    assert consumers.position_of(project.connection, CONSUMER) == head
    project.record([project.event("cache.hit")])
    assert project.settle() == 1
    assert verify_metrics(project.connection).findings == ()


@pytest.mark.parametrize(
    "alteration",
    [
        "UPDATE metric_counters SET value = value + 1 WHERE labels = '{cache.hit}'",
        "DELETE FROM metric_counters WHERE labels = '{user}'",
        "INSERT INTO metric_counters VALUES ('workledger_messages_total', '{ghost}', 1)",
        "UPDATE metric_histograms SET total = total + 0.000001 WHERE labels = '{task,search}'",
        "UPDATE metric_histograms SET upper_bound = 0.1 WHERE labels = '{task,search}'",
        "UPDATE metric_hours SET hour = hour + interval '1 hour'",
        "UPDATE metric_label_values SET first_position = 99 WHERE value = 'cache.hit'",
        "UPDATE consumers SET position = position - 1 WHERE name = 'metrics'",
    ],
)
def test_verify_names_a_number_that_was_altered_behind_its_back(project, alteration):
    project.record([project.event("cache.hit"), *project.conversation(["user"])])
    project.record(project.execution(project.running_workflow()))
    project.settle()
    assert verify_metrics(project.connection).findings == ()
    project.connection.execute(alteration)
    report = verify_metrics(project.connection)
    assert report.findings
    assert "the log adds up to" in str(report.findings[0])


def test_what_is_not_counted_yet_is_lag_and_not_a_fault(project):
    project.mixed_work(workflows=3)
    project.settle()
    project.record([project.event("cache.hit")])
    sequence(project.connection, schema=project.schema)
    report = verify_metrics(project.connection)
    assert (report.lag, report.findings) == (1, ())
    assert report.numbers > 20


def test_a_log_with_a_hole_is_refused_instead_of_counted(project):
    project.mixed_work(workflows=2)
    project.settle()
    project.connection.execute("ALTER TABLE event_positions DISABLE TRIGGER USER")
    project.connection.execute("DELETE FROM event_positions WHERE position = 3")
    with pytest.raises(StoreCorrupted, match="positions 1 to"):
        verify_metrics(project.connection)
    before = project.tables()
    with pytest.raises(StoreCorrupted):
        recompute(project.connection)
    assert project.tables() == before


_COUNT = """
import sys
from workledger.flows.log_to_metrics import catch_up
from workledger.postgres.connection import connect
print(catch_up(connect(sys.argv[1], schema=sys.argv[2]), batch=int(sys.argv[3])))
"""


def start_counting(project, *, batch):
    argv = [sys.executable, "-c", _COUNT, project.url, project.schema, str(batch)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def test_a_consumer_killed_between_counting_and_moving_its_cursor_leaves_no_trace(project):
    project.mixed_work(workflows=5)
    project.settle(limit=20)
    before = project.tables()
    with connect(project.url, schema=project.schema) as gate:
        # The cursor can be locked by the copy below, but not moved.
        gate.execute("BEGIN")
        gate.execute("LOCK TABLE consumers IN SHARE MODE")
        process = start_counting(project, batch=1000)
        wait_until(
            lambda: project.sql(
                """SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                   AND query LIKE '%%INTO consumers%%' AND pid <> pg_backend_pid()"""
            ),
            timeout_s=100,
        )
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        gate.execute("ROLLBACK")
    locked = "SELECT 1 FROM pg_locks WHERE relation = 'metric_counters'::regclass"
    wait_until(lambda: not project.sql(locked), timeout_s=60)
    assert project.tables() == before
    assert consumers.position_of(project.connection, CONSUMER) == 20
    project.settle()
    assert verify_metrics(project.connection).findings == ()


def test_copies_that_run_at_once_count_every_event_once(project):
    project.mixed_work(workflows=30)
    head = sequence(project.connection, schema=project.schema)
    copies = [start_counting(project, batch=9) for _ in range(4)]
    said = [copy.communicate(timeout=150)[0] for copy in copies]
    counted = [int(number) for number in said]
    assert sum(counted) == head
    assert project.one("SELECT sum(value)::int FROM metric_counters WHERE name = %s", EVENTS.name) == head
    assert verify_metrics(project.connection).findings == ()


def test_a_copy_that_finds_no_cursor_counts_nothing_that_who_made_it_has_counted(project, monkeypatch):
    """Another copy begins, and is through, just after this one has seen that nobody ever began."""
    project.mixed_work(workflows=3)
    head = sequence(project.connection, schema=project.schema)
    fetch, overtaken = store._fetch, []

    def fetch_and_be_overtaken(connection, name, *parameters):
        rows = fetch(connection, name, *parameters)
        if name == "lock_cursor" and not overtaken:
            overtaken.append(rows)
            with project.connect() as other:
                assert catch_up(other) == head
        return rows

    monkeypatch.setattr(store, "_fetch", fetch_and_be_overtaken)
    assert catch_up(project.connection) == 0
    assert overtaken == [[]]
    assert project.one("SELECT sum(value)::int FROM metric_counters WHERE name = %s", EVENTS.name) == head
    assert verify_metrics(project.connection).findings == ()


def test_names_beyond_the_bound_share_one_series(project):
    bound = WORKFLOWS.labels[0].bound
    for n in range(bound + 20):
        project.record(project.workflow(f"run of {n}"))
    project.record([project.event(f"own.{n}") for n in range(500)])
    project.settle(batch=37)
    names = project.sql("SELECT DISTINCT labels[1] FROM metric_counters WHERE name = %s", WORKFLOWS.name)
    assert {name for (name,) in names} == {f"run of {n}" for n in range(bound)} | {"other"}
    assert project.counter(WORKFLOWS.name, "other", "completed") == 20
    assert project.counter(EVENTS.name, "other") == 500 - EVENTS.labels[0].bound
    assert project.counter(EVENTS.name, "workflow.completed") == bound + 20
    assert verify_metrics(project.connection).findings == ()


def test_events_of_the_application_never_disturb_the_counting(project):
    payload = {"execution_time_ms": "soon", "cost_usd": [], "message": 1, "retry_count": "many", "name": {}}
    project.record([project.event(name, payload) for name in ("task.custom", "workflow.x", "message.y", "feedback")])
    assert project.settle() == 4
    assert project.counter(EVENTS.name, "task.custom") == 1
    assert project.one("SELECT count(*) FROM metric_counters") == 4


def test_text_that_no_label_can_hold_is_shown_without_it(project):
    workflow_id = project.running_workflow()
    usage = Usage(input_tokens=7, model="gpt\x00\n\ud800é" + "x" * 300)
    project.record(project.execution(workflow_id, kind=Kind.LLM, usage=usage))
    project.settle()
    model = "gpt\ufffd\ufffd\ufffdé" + "x" * 248
    assert project.counter("workledger_tokens_total", "execution", "input", model) == 7


def test_a_workflow_that_failed_and_was_resumed_counts_in_every_status_it_came_into(project):
    started, failed = project.workflow(outcome="failed")
    project.record([started])
    project.record([failed])
    project.record([change.resume_workflow(workflow_id=started.entity_id, attempt=1, at=project.now)])
    project.settle()
    assert project.counter(WORKFLOWS.name, "research", "running") == 2
    assert project.counter(WORKFLOWS.name, "research", "failed") == 1


def test_failure_rates_by_task_come_from_the_hours_since(project):
    workflow_id = project.running_workflow()
    project.record(project.execution(workflow_id, "old", outcome="failed"))
    project.now += timedelta(hours=3, minutes=59)
    for outcome in ("failed", "completed", "completed", "completed"):
        project.record(project.execution(workflow_id, "new", outcome=outcome))
    project.settle()
    (rate,) = store.task_rates(project.connection, since=project.now - timedelta(hours=1))
    assert (rate.task_name, rate.completed, rate.failed, rate.cancelled) == ("new", 3, 1, 0)
    assert rate.failure_rate == 0.25
    assert len(store.task_rates(project.connection, since=project.now - timedelta(hours=9))) == 2


def test_numbers_of_any_size_add_up_exactly(project):
    workflow_id = project.running_workflow()
    for took_ms in (1e300, 1e-300, 0.1, 1e300):
        project.record(project.execution(workflow_id, took_ms=took_ms))
    project.settle(batch=1)
    total = project.one("SELECT sum(total) FROM metric_histograms WHERE labels = '{task,search}'")
    assert total == EXACT.add(Decimal("2e297"), Decimal("0.0001"))
    assert verify_metrics(project.connection).findings == ()


def test_the_documented_statement_gives_failure_rates_by_task(project):
    project.now = datetime.now(UTC)
    workflow_id = project.running_workflow()
    for outcome in ("failed", "completed", "completed", "completed"):
        project.record(project.execution(workflow_id, outcome=outcome))
    project.settle()
    text = (REPOSITORY / "docs" / "reference" / "metrics.md").read_text()
    (statement,) = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    assert project.sql(statement) == [("task", "search", Decimal("0.250"))]


def test_looking_at_an_idle_log_locks_nothing(project):
    project.record([project.event("cache.hit")])
    project.settle()
    with project.connect() as other:
        other.execute("BEGIN")
        other.execute("SELECT 1 FROM consumers FOR UPDATE")
        assert project.settle() == 0
