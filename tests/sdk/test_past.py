"""`ledger.as_of`: every read of the ledger, as it was."""

from __future__ import annotations

import pytest

from workledger.errors import InvalidInput, NotFound
from workledger.log import reader
from workledger.log.sequencer import sequence
from workledger.model.fact import Usage


def position(ledger):
    """The head of the log, once everything that was recorded has its place."""
    with ledger.pool.connection() as connection:
        sequence(connection, schema="workledger")
        return reader.head(connection)[0]


def told(ledger, workflow_id="w"):
    """What every read gives, but for the connection it goes over."""
    workflow = ledger.get_workflow(workflow_id)
    return {
        "workflow": workflow,
        "workflows": ledger.workflows(),
        "find": list(ledger.find(status=workflow.status, tag="t")),
        "search": list(ledger.search("letters")),
        "failures": list(ledger.search_failures("boom")),
        "running": list(ledger.running()),
        "stuck": list(ledger.stuck(quiet_s=0)),
        "failed": list(ledger.failed()),
        "failed executions": list(ledger.failed_executions()),
        "executions": ledger.executions(workflow_id),
        "timeline": list(ledger.timeline(workflow_id)),
        "messages": ledger.messages("c"),
        "feedback": ledger.feedback_of(workflow_id),
        "usage": ledger.usage(workflow_id, with_children=True),
    }


def start(ledger):
    return ledger.start_workflow("letters", workflow_id="w", tags=["t"], conversation_id="c")


def story(ledger, stop=lambda: None):
    """A workflow, with a stop after each thing that happens in it."""
    with pytest.raises(ValueError, match="boom"), start(ledger) as run:
        run.message("user", "hello")
        stop()
        with run.task("write", input={"n": 1}) as task:
            stop()
            task.output = {"ok": True}
        run.feedback("helpful", score=1.0)
        stop()
        with run.llm("ask", input="?", model="m-1") as call:
            call.output = "!"
            call.usage = Usage(model="m-1", input_tokens=3, output_tokens=4)
        run.message("assistant", "hi")
        stop()
        with run.task("fail"):
            raise ValueError("boom")
    stop()


def test_every_read_is_what_it_was_at_each_position(ledger):
    then = {}
    story(ledger, stop=lambda: then.setdefault(position(ledger), told(ledger)))
    assert len(then) == 5
    with ledger.start_workflow("other"):
        pass
    for at, expected in then.items():
        with ledger.as_of(at) as past:
            assert past.position == at
            found = told(past)
        for name, value in expected.items():
            assert found[name] == value, (at, name)


def test_statistics_are_of_the_day_before_that_moment(ledger):
    story(ledger)
    at, now = position(ledger), (ledger.statistics(), ledger.execution_statistics(), ledger.slowest_executions())
    for name in ("later", "latest"):
        with ledger.start_workflow(name) as run, run.task("more"):
            pass
    with ledger.as_of(at) as past:
        assert (past.statistics(), past.execution_statistics(), past.slowest_executions()) == now
        assert past.count_by_status() == {"workflow": {"failed": 1}, "execution": {"completed": 2, "failed": 1}}


def test_one_workflow_alone_and_the_head_and_a_time(ledger):
    seen = []

    def look():
        with ledger.as_of(workflow_id="w") as past:
            assert past.position == position(ledger)
            assert past.get_workflow("w").status == ledger.get_workflow("w").status
            assert past.get_conversation("c").last_seq == len(past.messages("c")) == len(ledger.messages("c"))
            assert past.events("w")[-1].position <= past.position
            seen.append((past.at, past.position, past.get_workflow("w")))

    story(ledger, stop=look)
    for at, where, workflow in seen:
        with ledger.as_of(at) as past:
            assert (past.position, past.get_workflow("w")) == (where, workflow)
    with ledger.as_of(0) as past, pytest.raises(NotFound):
        past.get_workflow("w")
    with pytest.raises(InvalidInput, match="the log has positions up to"), ledger.as_of(10_000):
        pass


def test_the_present_goes_on_beside_the_past(ledger):
    with ledger.start_workflow("a", workflow_id="a"):
        pass
    at = position(ledger)
    with ledger.as_of(at) as past:
        with ledger.start_workflow("b", workflow_id="b"):
            pass
        assert ledger.get_workflow("b").status == "completed"
        with pytest.raises(NotFound):
            past.get_workflow("b")
