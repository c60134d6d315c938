"""Whole finished workflows recorded in bulk leave what change by change would have left, row for row."""

import pytest

import workledger
from support.changes import complete, done, make, start, task, whole_workflow
from workledger.errors import Conflict
from workledger.model.change import Failure, Usage
from workledger.model.ids import new_id
from workledger.operational.bulk import are_finished

FAILURE = Failure(error_type="ValueError", error="a\tb\\n\0", error_traceback="line 1\nline 2")
TABLES = ("workflows", "task_executions", "conversations", "messages", "feedback", "payloads", "events")


def rich_workflow(n):
    """A workflow with everything an import can have."""
    workflow_id, outer, inner = f"w{n}\\t", new_id(), new_id()
    ids = {"workflow_id": workflow_id}
    return [
        start(
            **ids, input={"n": n}, metadata={"k": "\\"}, tags=["a", "b"], subject="s", conversation_id=f"c{n}",
            total_steps=1, workflow_type="agent", trace_id="t",
        ),
        make("start_conversation", conversation_id=f"c{n}", **ids, title="T", subject="s"),
        make("add_message", conversation_id=f"c{n}", message_id=f"m{n}-1", **ids,
             message={"role": "system", "content": "long " * 2000}),
        task(**ids, execution_id=outer, input=[1], task_name="outer", step_key="outer"),
        task(**ids, execution_id=inner, parent_execution_id=outer, kind="tool", task_name="inner", retry_count=2),
        make("fail_execution", **ids, execution_id=inner, failure=FAILURE, execution_time_ms=2.5),
        done(**ids, execution_id=outer, output={"o": None}, usage=Usage(input_tokens=5, cost_usd=0.25, model="m")),
        make("add_message", conversation_id=f"c{n}", message_id=f"m{n}-2", **ids,
             message={"role": "assistant", "content": None, "tool_calls": [{"id": "1"}], "weight": 0}),
        make("record_event", event_type="cache.hit", entity_type="workflow", entity_id=workflow_id, **ids)
        if n < 0 else make("record_feedback", feedback_id=f"f{n}", name="reward", score=1.0, **ids),
        make("fail_workflow", **ids, failure=FAILURE, execution_time_ms=9.0) if n % 2 else
        complete(**ids, output=["x"], execution_time_ms=9.0),
    ]  # fmt: skip


def rows(ledger, table):
    with ledger.pool.connection() as connection:
        columns = [
            name
            for (name,) in connection.execute(
                "SELECT column_name FROM information_schema.columns"
                " WHERE table_schema = current_schema() AND table_name = %s",
                (table,),
            )
            if name not in {"updated_at", "recorded_at", "salt"} and (table, name) != ("payloads", "created_at")
        ]
        where = " WHERE workflow_id IS NOT NULL" if table == "events" else ""
        order = columns.index({"events": "event_id", "payloads": "digest"}.get(table, columns[0]))
        quoted = ", ".join(f'"{name}"' for name in columns)
        found = connection.execute(f"SELECT {quoted} FROM {table}{where}").fetchall()
        return sorted(found, key=lambda row: str(row[order]))


def test_bulk_leaves_what_single_changes_leave(database_url, tmp_path):
    changes = [change for n in range(12) for change in rich_workflow(n)]
    assert are_finished(changes)
    with (
        workledger.open(database_url, project="bulk", home=tmp_path) as bulk,
        workledger.open(database_url, project="single", home=tmp_path) as single,
    ):
        bulk.recorder.record_all(changes)
        for change in changes:
            single.record(change)
        for table in TABLES:
            assert rows(bulk, table) == rows(single, table), table


def test_the_log_has_a_bulk_in_its_order(ledger):
    from workledger.log import reader
    from workledger.log.sequencer import sequence

    changes = [change for n in range(12) for change in rich_workflow(n)]
    ledger.recorder.record_all(changes)
    with ledger.pool.connection() as connection:
        sequence(connection, schema="workledger")
        positions = [event.event_id for event in reader.iterate(connection)]
    assert positions == [change.event_id for change in changes]


def test_a_bulk_recorded_again_changes_nothing(ledger):
    changes = [change for n in range(12) for change in rich_workflow(n)]
    ledger.recorder.record_all(changes)
    before = {table: rows(ledger, table) for table in TABLES}
    outcomes = ledger.recorder.record_all(changes)
    assert not any(outcome.applied for outcome in outcomes)
    assert {table: rows(ledger, table) for table in TABLES} == before


def test_a_bulk_with_a_taken_id_is_refused_whole(ledger):
    ledger.record(start(workflow_id="w3\\t"))
    changes = [change for n in range(12) for change in rich_workflow(n)]
    with pytest.raises(Conflict, match="already exists"):
        ledger.recorder.record_all(changes)
    assert len(ledger.workflows()) == 1


@pytest.mark.parametrize("left_out", ["workflow.started", "workflow.completed", "task.started", "task.completed"])
def test_a_batch_with_a_loose_end_is_not_taken_for_finished(left_out):
    changes = [change for _ in range(30) for change in whole_workflow()]
    index = next(n for n, change in enumerate(changes) if change.event_type == left_out)
    assert are_finished(changes)
    assert not are_finished(changes[:index] + changes[index + 1 :])


def test_a_batch_with_a_change_in_between_is_not_taken_for_finished():
    changes = [change for _ in range(30) for change in whole_workflow()]
    changes.insert(3, make("progress_workflow", workflow_id=changes[0].workflow_id, state_data={}))
    assert not are_finished(changes)
