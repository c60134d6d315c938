"""A line says what SQL says, and depends on nothing but the log up to its position."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest

from training.journal import Journal
from training.reading import assert_agrees_with_sql, derived, records
from workledger.errors import StoreCorrupted
from workledger.model import change
from workledger.model.status import Kind
from workledger.training import deriver as deriver_module
from workledger.training.deriver import Deriver
from workledger.training.executions import _Line as ExecutionLine
from workledger.training.log_lines import LogLines
from workledger.training.records import SCHEMAS, RecordType
from workledger.training.store import LocalStore
from workledger.training.workflows import _Line as WorkflowLine

Land = Callable[..., int]


def much_happens(journal: Journal) -> None:
    """Every event type that moves a line, in every order that is legal."""
    journal.workflow("plain", tags=["a", "b"], metadata={"k": 1}, subject="ada", trace_id="t1", total_steps=5)
    journal.start("later", pending=True, worker_id="w1", total_steps=1)
    journal.start("fails")
    journal.execution("fails/1", "fails", fails=True)
    journal.record(change.start_workflow, workflow_id="later", name="other name", worker_id="w2", metadata={"no": 1})
    journal.record(
        change.progress_workflow,
        workflow_id="fails",
        state_data={"n": 1},
        current_step="by hand",
        total_steps=9,
        metadata={"a": 1, "b": {"c": 2}},
        conversation_id="talk",
    )
    journal.execution("fails/2", "fails", retry_count=1)
    journal.fail("fails", execution_time_ms=7.5)
    journal.record(change.resume_workflow, workflow_id="fails", attempt=1, worker_id="w9")
    journal.record(change.progress_workflow, workflow_id="fails", metadata={"b": 3, "z": None}, current_step="x")
    journal.execution("later/1", "later", kind=Kind.TOOL, input={"q": "ü"}, output=None)
    journal.execution("fails/3", "fails", kind=Kind.AGENT, parent_execution_id="fails/2", metadata={"m": [1]})
    journal.record(
        change.start_execution, execution_id="later/2", workflow_id="later", task_name="long", step_key="s#1"
    )
    journal.record(change.request_cancel, workflow_id="later", reason="enough")
    journal.record(change.cancel_execution, execution_id="later/2", workflow_id="later", reason="stopped")
    journal.record(change.cancel_workflow, workflow_id="later", reason="stopped", execution_time_ms=3.0)
    journal.finish("fails", output={"all": "well"})
    journal.start("never ends")
    journal.execution("never/1", "never ends", kind=Kind.LLM, input=[{"role": "user"}], output="x", model="m-2")
    journal.record(change.record_feedback, feedback_id="f1", name="helpful", workflow_id="plain", score=1.0)
    journal.events(3)


def test_every_value_of_every_line_is_what_sql_has(journal: Journal, land: Land, store: LocalStore) -> None:
    much_happens(journal)
    land()
    assert_agrees_with_sql(journal, store)
    assert [len(records(store, record_type)) for record_type in RecordType] == [
        journal.sequence(),
        8,
        2,
        4,
    ]


def test_each_ending_of_a_resumed_workflow_is_a_line_with_its_attempt(
    journal: Journal, land: Land, store: LocalStore
) -> None:
    much_happens(journal)
    land()
    endings = [line for line in records(store, RecordType.WORKFLOWS) if line["workflow_id"] == "fails"]
    assert [(line["attempt"], line["status"], line["error"], line["output_data"]) for line in endings] == [
        (1, "failed", "no", None),
        (2, "completed", None, {"all": "well"}),
    ]
    assert endings[0]["completed_steps"] == endings[1]["completed_steps"] == 1
    assert endings[0]["started_position"] == endings[1]["started_position"] < endings[0]["position"]


def test_a_line_names_its_positions_and_its_conversation(journal: Journal, land: Land, store: LocalStore) -> None:
    journal.workflow("w")
    land()
    (tool,) = records(store, RecordType.TOOL_EXECUTIONS)
    events = {line["position"]: line for line in records(store, RecordType.EVENTS)}
    assert (events[tool["position"]]["event_type"], events[tool["position"]]["entity_id"]) == (
        "task.completed",
        "w/search",
    )
    assert events[tool["started_position"]]["event_type"] == "task.started"
    assert tool["conversation_id"] == "talk-w"
    assert tool["workflow_id"] == "w"


@pytest.mark.parametrize("seed", range(5))
def test_lines_do_not_depend_on_where_the_log_was_cut(journal: Journal, seed: int) -> None:
    much_happens(journal)
    head = journal.sequence()
    whole = derived(journal, [head])
    chance = random.Random(seed)
    cuts = sorted({*chance.sample(range(1, head), chance.randint(1, head - 2)), head})
    assert derived(journal, cuts) == whole


def test_lines_do_not_depend_on_what_is_kept_in_memory(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    much_happens(journal)
    head = journal.sequence()
    whole = derived(journal, [head])
    monkeypatch.setattr(deriver_module, "_KEPT_BYTES", 1)
    assert derived(journal, [head]) == whole
    assert derived(journal, range(1, head + 1)) == whole


@pytest.mark.parametrize("first", [2, 9, 17, 25, 33])
def test_a_reader_that_begins_in_the_middle_makes_the_same_lines(journal: Journal, first: int) -> None:
    much_happens(journal)
    head = journal.sequence()
    whole = derived(journal, [head])
    log = LogLines(journal.connection)
    for record_type, lines in Deriver(log).derive(log.read(after=first - 1, limit=1000)):
        ours = [line for line in whole[record_type] if json.loads(line)["position"] >= first]
        assert lines == ours


def test_what_happens_later_changes_no_earlier_line(journal: Journal) -> None:
    journal.start("w", conversation_id="c1")
    journal.execution("w/1", "w")
    journal.fail("w")
    before = derived(journal, [journal.sequence()])
    journal.record(change.resume_workflow, workflow_id="w", attempt=1)
    journal.record(change.progress_workflow, workflow_id="w", conversation_id="c2", metadata={"x": 1})
    journal.execution("w/2", "w")
    journal.finish("w")
    after = derived(journal, [journal.sequence()])
    for record_type in RecordType:
        assert after[record_type][: len(before[record_type])] == before[record_type]
    assert [json.loads(line)["conversation_id"] for line in after[RecordType.TASKS]] == ["c1", "c2"]


@pytest.mark.parametrize("record_type", RecordType)
def test_a_line_has_the_columns_that_the_schema_publishes(
    journal: Journal, land: Land, store: LocalStore, record_type: RecordType
) -> None:
    journal.workflow("w")
    land()
    columns = [column.name for column in SCHEMAS[record_type].columns]
    for line in records(store, record_type):
        assert list(line) == columns
    published = json.loads((store.folder / "_schema" / f"{record_type}.json").read_bytes())
    assert list(published["properties"]) == published["required"] == columns


def test_the_structs_that_write_lines_have_the_published_columns() -> None:
    workflow = [column.name for column in SCHEMAS[RecordType.WORKFLOWS].columns]
    execution = [column.name for column in SCHEMAS[RecordType.TASKS].columns]
    assert list(WorkflowLine.__struct_fields__) == workflow
    assert list(ExecutionLine.__struct_fields__) == execution


def test_large_values_stand_in_lines_in_full(journal: Journal, land: Land, store: LocalStore) -> None:
    prompt = {"prompt": "You are an owl. " * 1000}
    journal.start("w", input=prompt)
    journal.execution("w/1", "w", kind=Kind.TOOL, input=prompt, output=["x" * 20_000])
    journal.record(change.start_conversation, conversation_id="c")
    journal.record(
        change.add_message, message_id="m", conversation_id="c", message={"role": "user", "content": "long " * 2000}
    )
    journal.event({"big": prompt, "message": prompt, "small": 1})
    journal.finish("w", output=prompt)
    assert journal.sql("SELECT count(*) FROM payloads") == [(3,)]
    land()
    assert_agrees_with_sql(journal, store)
    assert records(store, RecordType.WORKFLOWS)[0]["input_data"] == prompt
    assert records(store, RecordType.TOOL_EXECUTIONS)[0]["output_data"] == ["x" * 20_000]
    event = next(line for line in records(store, RecordType.EVENTS) if line["event_type"] == "cache.hit")
    assert event["payload"] == {"big": prompt, "message": prompt, "small": 1}
    message = next(line for line in records(store, RecordType.EVENTS) if line["event_type"] == "message.added")
    assert message["payload"]["message"]["content"] == "long " * 2000


def test_a_value_that_only_looks_like_a_reference_stays_as_it_is(
    journal: Journal, land: Land, store: LocalStore
) -> None:
    fake = {"$workledger": "payload", "digest": "ab" * 32, "size": 5}
    journal.start("w", input=fake, metadata={"m": fake})
    journal.record(change.progress_workflow, workflow_id="w", metadata=fake, state_data=fake)
    journal.event({"value": fake, "deep": {"message": {"content": fake}}})
    journal.event({"message": {"content": fake}, **fake})
    journal.execution("w/1", "w", kind=Kind.TOOL, input=[fake], output=fake)
    journal.finish("w", output=fake)
    land()
    (line,) = records(store, RecordType.WORKFLOWS)
    assert line["input_data"] == {"$workledger": "dict", "value": fake}
    assert_agrees_with_sql(journal, store)


@pytest.mark.parametrize("harm", ["DELETE FROM payloads", "UPDATE payloads SET body = 'x', codec = 'json'"])
def test_a_large_value_that_was_lost_or_altered_is_named(
    journal: Journal, land: Land, store: LocalStore, harm: str
) -> None:
    journal.event({"big": "x" * 10_000})
    ((digest,),) = journal.sql("SELECT encode(digest, 'hex') FROM payloads")
    journal.connection.execute(harm)
    with pytest.raises(StoreCorrupted, match=digest):
        land()
    assert store.position() == 0
    assert list((store.folder / "events").iterdir()) == []


def test_events_written_by_hand_do_not_stop_the_store(journal: Journal, land: Land, store: LocalStore) -> None:
    for event_type, payload in [
        ("task.completed", '"text"'),
        ("task.started", '{"kind": 5}'),
        ("workflow.completed", "null"),
        ("workflow.started", '{"total_steps": "many"}'),
        ("workflow.failed", "[]"),
    ]:
        journal.connection.execute(
            "WITH e AS (INSERT INTO events (event_id, event_type, entity_type, entity_id, workflow_id, payload)"
            " VALUES (uuidv7(), %s, 'x', 'e', 'w', %s::jsonb) RETURNING event_id)"
            " INSERT INTO event_inbox (event_id) SELECT event_id FROM e",
            (event_type, payload),
        )
    journal.connection.execute(
        "WITH e AS (INSERT INTO events (event_id, event_type, entity_type, entity_id, payload, severity)"
        " VALUES (uuidv7(), 'odd', NULL, NULL, NULL, NULL) RETURNING event_id)"
        " INSERT INTO event_inbox (event_id) SELECT event_id FROM e"
    )
    land()
    assert [len(records(store, record_type)) for record_type in RecordType] == [6, 1, 0, 2]
