"""Finished workflows leave the state by an event, with what belongs to them, and a replay takes the same away."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from training.journal import SCHEMA
from workledger.errors import InvalidInput, InvalidTransition
from workledger.flows.verify import check_database
from workledger.log import reader
from workledger.model import change
from workledger.model.archive_change import archive_workflow
from workledger.operational import archived
from workledger.operational.apply import apply_one


def test_what_is_open_stays_with_all_its_history(old):
    old.at(3)
    old.workflow("done")
    old.start("running")
    old.record(change.start_execution, execution_id="x", workflow_id="running", task_name="t")
    old.record(change.start_workflow, workflow_id="pending", name="later", pending=True)
    old.settle()
    report = old.archive()
    (march,) = [one for one in report.partitions if one.partition == "events_2026_03"]
    assert report.state.workflows == 1
    assert march.held == "it has events of workflows that are not archived: pending, running"
    assert old.sql("SELECT workflow_id FROM workflows ORDER BY 1") == [("pending",), ("running",)]
    assert old.faults() == []


def test_what_was_recorded_lately_about_an_old_time_stays(old):
    """An import of old runs is not gone an hour later: it is as old as its recording."""
    old.live(3)
    report = old.archive(cutoff=datetime.now(UTC) - timedelta(days=1))
    assert report.state.workflows == 0
    assert {one.partition for one in report.partitions if not one.dropped} == {"events_2026_03"}


def test_a_workflow_that_is_resumed_while_it_is_archived_stays(old):
    old.at(3)
    for name in ("a", "b"):
        old.start(name)
        old.fail(name)
    old.settle()

    def resume(step, _what):
        if step == "recorded" and not old.sql("SELECT 1 FROM workflows WHERE workflow_id = 'a' AND attempt > 1"):
            old.record(change.resume_workflow, workflow_id="a", attempt=1)

    report = old.archive(on_step=resume)
    assert (report.state.workflows, report.state.stayed) == (1, 1)
    assert old.sql("SELECT workflow_id, status FROM workflows") == [("a", "running")]
    old.finish("a")
    old.settle()
    assert old.faults() == []
    assert old.archive().state.workflows == 1
    assert old.faults() == []


def test_feedback_that_comes_while_its_workflow_leaves_is_kept(old):
    old.live(3)

    def judge(step, what):
        if step == "recorded" and what.endswith("workflows.parquet"):
            old.record(change.record_feedback, feedback_id="late", name="good", score=1.0, workflow_id="w-3-talk")

    old.archive(on_step=judge)
    assert old.sql("SELECT feedback_id, workflow_id FROM feedback") == [("late", "w-3-talk")]
    old.settle()
    assert old.faults() == []


def test_a_message_that_comes_while_its_conversation_leaves_goes_with_the_next_batch(old):
    old.live(3)
    said = []

    def speak(step, what):
        if step == "recorded" and what.endswith("workflows.parquet") and not said:
            said.append(what)
            message = {"role": "user", "content": "one more thing"}
            old.record(change.add_message, message_id="late", conversation_id="talk-w-3-talk", message=message)

    report = old.archive(on_step=speak)
    assert report.state.stayed == 1
    assert old.counts()["messages"] == 0
    found = archived.workflow(old.connection, "w-3-talk")
    assert [message.message_id for message in found.messages] == ["w-3-talk/m0", "w-3-talk/m2", "late"]
    old.settle()
    assert old.faults() == []


def test_a_conversation_leaves_with_the_last_of_its_workflows(old):
    old.at(3)
    old.record(change.start_conversation, conversation_id="shared")
    for name in ("a", "b", "c"):
        old.start(name, conversation_id="shared")
        message = {"role": "user", "content": name}
        old.record(change.add_message, message_id=name, conversation_id="shared", message=message, workflow_id=name)
    for name in ("a", "b"):
        old.finish(name)
    old.settle()
    assert old.archive().state.workflows == 2
    assert old.sql("SELECT count(*) FROM messages") == [(3,)]
    assert old.faults() == []
    old.finish("c")
    old.settle()
    assert old.archive().state.workflows == 1
    assert old.counts() == {**dict.fromkeys(old.counts(), 0), "events": old.counts()["events"]}
    assert old.faults() == []


@pytest.mark.parametrize("batch", [1, 2, 20_000])
def test_batches_of_any_size_give_the_same(old, batch):
    old.at(3)
    old.record(change.start_conversation, conversation_id="shared")
    for name in ("a", "b", "c", "d"):
        old.start(name, conversation_id="shared" if name != "d" else None)
        old.finish(name)
    old.settle()
    assert old.archive(batch=batch).state.workflows == 4
    assert old.sql("SELECT count(*) FROM conversations") == [(0,)]
    assert sorted(old.sql("SELECT workflow_id FROM archived_workflows")) == [("a",), ("b",), ("c",), ("d",)]
    assert old.faults() == []


def test_the_event_names_what_left_and_where_it_went(old):
    old.live(3)
    old.archive()
    old.sequence()
    *_, last = reader.of_workflow(old.connection, "w-3-talk")
    assert last.event_type == "workflow.archived"
    ((archive,),) = old.sql("SELECT archive FROM archived_workflows WHERE workflow_id = 'w-3-talk'")
    assert last.payload == {
        "archive": archive,
        "conversations": ["talk-w-3-talk"],
        "feedback": ["w-3-talk/f0", "w-3-talk/f1", "w-3-talk/f2"],
        "first_position": 25,
        "last_position": 38,
    }
    told = reader.newest(old.connection, event_type="log.archived", limit=1)[0]
    ((name, digest, rows),) = old.sql(
        "SELECT name, encode(sha256, 'hex'), rows FROM archives WHERE name = %s", told.entity_id
    )
    assert (told.entity_type, json.loads(told.payload_json)["sha256"], told.payload["rows"]) == ("system", digest, rows)
    assert name.startswith("events/")


def test_only_a_finished_workflow_can_be_archived_and_only_once(old):
    old.at_present()
    old.start("w")
    going = archive_workflow(
        workflow_id="w",
        archive="state/x",
        conversations=[],
        feedback=[],
        first_position=1,
        last_position=1,
        at=old.now(),
    )
    with pytest.raises(InvalidTransition, match="workflow of 'w' is running, not completed or failed or cancelled"):
        apply_one(old.connection, going)
    old.finish("w")
    assert apply_one(old.connection, going).applied
    assert not apply_one(old.connection, going).applied
    old.settle()
    with old.connect() as connection:
        (state,) = check_database(connection, schema=SCHEMA, names=["state"])
    assert (state.ok, state.counts["archived_workflows"]) == (True, 1)


def test_an_application_cannot_record_the_archive_s_own_events(old):
    for event_type in ("workflow.archived", "log.archived"):
        with pytest.raises(InvalidInput, match="moves state"):
            old.made(change.record_event, event_type=event_type, entity_type="system", entity_id="x")


def test_a_rehearsal_says_what_would_happen_and_does_nothing(old):
    old.live(3)
    old.at(4)
    old.start("running")
    old.settle()
    before = old.counts(), old.months(), old.head
    report = old.archive(dry_run=True)
    assert report.dry_run
    assert report.state.workflows == 3
    held = {one.partition: one.held for one in report.partitions}
    assert held["events_2026_03"] is None
    assert held["events_2026_04"] == "it has events of workflows that are not archived: running"
    assert (old.counts(), old.months(), old.head) == before
    assert not old.folder.exists()
