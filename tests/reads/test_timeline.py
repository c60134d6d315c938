"""A timeline has everything that happened in a workflow, in the order of the log, page by page."""

import pytest

from support.changes import start
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


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("limit", [1, 5, 12])
def test_pages_meet_whenever_the_log_is_sequenced(ledger, run, when, limit):
    if when == "before":
        sequenced(ledger)
    page = ledger.timeline(run.workflow_id, limit=limit)
    found = list(page)
    while page.cursor:
        page = ledger.timeline(run.workflow_id, limit=limit, cursor=page.cursor)
        found += page
    assert len({entry.event_id for entry in found}) == len(found)
    if when == "before":
        assert [(entry.what, entry.event_type, entry.title) for entry in found] == TOLD
    else:
        assert {entry.event_type for entry in found} == {event_type for _, event_type, _ in TOLD}


def test_a_timeline_is_of_one_workflow(ledger, run):
    ledger.record(start(workflow_id="other"))
    assert [entry.entity_id for entry in ledger.timeline("other")] == ["other"]


def test_a_cursor_that_names_no_event_is_refused(ledger, run):
    with pytest.raises(InvalidInput, match="cursor"):
        ledger.timeline(run.workflow_id, cursor="nonsense")
