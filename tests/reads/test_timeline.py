"""A timeline has everything that happened in a workflow, in the order of the log, page by page."""

import pytest

from support.changes import make, start
from workledger.errors import InvalidInput
from workledger.log.sequencer import sequence


@pytest.fixture
def run(ledger):
    with pytest.raises(ValueError), ledger.start_workflow("report", input={"a": 1}) as run:
        with run.task("load") as load:
            with load.tool("query", input="select") as tool:
                tool.output = [1]
            run.message("assistant", "done")
        run.event("cache.hit", {"seq": "not a number", "name": {"deep": 1}, "execution_time_ms": "long"})
        run.feedback("helpful", score=1)
        run.progress(state_data={"n": 1})
        raise ValueError("no \x00 good")
    return run


def sequenced(ledger):
    with ledger.pool.connection() as connection:
        sequence(connection, schema="workledger")


def occurrence(event_id):
    return make(
        "record_event",
        event_type="a.b",
        entity_type="workflow",
        entity_id="w",
        payload=None,
        workflow_id="w",
        event_id=event_id,
    )


TOLD = [
    ("workflow", "workflow.started", "report"),
    ("execution", "task.started", "load"),
    ("execution", "task.started", "query"),
    ("execution", "task.completed", "query"),
    ("event", "conversation.started", None),
    ("workflow", "workflow.progressed", None),
    ("message", "message.added", "assistant"),
    ("execution", "task.completed", "load"),
    ("event", "cache.hit", '{"deep": 1}'),
    ("feedback", "feedback.recorded", "helpful"),
    ("workflow", "workflow.progressed", None),
    ("workflow", "workflow.failed", None),
]


def test_everything_that_happened_is_told_in_the_order_of_the_log(ledger, run):
    sequenced(ledger)
    found = ledger.timeline(run.workflow_id)
    assert [(entry.what, entry.event_type, entry.title) for entry in found] == TOLD
    assert [entry.position for entry in found] == sorted(entry.position for entry in found)
    assert found.cursor is None


def test_entries_say_what_belongs_to_them(ledger, run):
    sequenced(ledger)
    found = ledger.timeline(run.workflow_id)
    _, load, tool, tool_end, *_ = found
    assert (load.kind, tool.kind, tool.parent_execution_id) == ("task", "tool", load.execution_id)
    assert tool_end.execution_time_ms > 0
    (message,) = [entry for entry in found if entry.what == "message"]
    assert (message.seq, message.execution_id) == (1, load.execution_id)
    assert (found[-1].error_type, found[-1].error, found[-1].severity) == ("ValueError", "no \x00 good", "error")


@pytest.mark.parametrize("when", ["before", "between", "after"])
@pytest.mark.parametrize("limit", [1, 5, 12])
def test_pages_meet_whenever_the_log_is_sequenced(ledger, run, when, limit):
    if when == "before":
        sequenced(ledger)
    page = ledger.timeline(run.workflow_id, limit=limit)
    found = list(page)
    while page.cursor:
        if when == "between" and len(found) > limit:
            sequenced(ledger)
        page = ledger.timeline(run.workflow_id, limit=limit, cursor=page.cursor)
        found += page
    assert len({entry.event_id for entry in found}) == len(found)
    if when == "before":
        assert [(entry.what, entry.event_type, entry.title) for entry in found] == TOLD
    else:
        assert sorted(entry.event_type for entry in found) == sorted(event_type for _, event_type, _ in TOLD)


def test_what_the_log_orders_otherwise_than_its_ids_is_neither_missed_nor_told_twice(ledger):
    """The sequencer takes what is in its inbox by commit; ids are by the clocks of the clients."""
    ids = [f"01900000-0000-7000-8000-00000000000{n}" for n in (9, 5, 7, 1, 3)]
    ledger.record(start(workflow_id="w"))
    sequenced(ledger)
    for event_id in ids[:3]:
        ledger.record(occurrence(event_id))
    page = ledger.timeline("w", limit=2)
    found = list(page)
    sequenced(ledger)
    for event_id in ids[3:]:
        ledger.record(occurrence(event_id))
    while page.cursor:
        page = ledger.timeline("w", limit=2, cursor=page.cursor)
        found += page
    told = [entry.event_id for entry in found]
    assert len(set(told)) == len(told)
    assert set(ids[:3]) <= set(told)


def test_a_timeline_is_of_one_workflow(ledger, run):
    ledger.record(start(workflow_id="other"))
    assert [entry.entity_id for entry in ledger.timeline("other")] == ["other"]


def test_a_cursor_that_names_no_event_is_refused(ledger, run):
    with pytest.raises(InvalidInput, match="cursor"):
        ledger.timeline(run.workflow_id, cursor="nonsense")
