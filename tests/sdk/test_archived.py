"""Reads of what is archived say where it is, and are never just empty."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from workledger.assembly import archive
from workledger.errors import NotFound
from workledger.flows.seal import seal_all
from workledger.log.sequencer import sequence
from workledger.settings import Settings


@pytest.fixture
def gone(ledger, database_url, tmp_path):
    """A ledger whose one workflow, `w`, is archived, and how it was before."""
    with ledger.start_workflow("letters", workflow_id="w", conversation_id="c") as run:
        run.message("user", "hello " * 2000)
        with run.task("write", input={"n": 1}) as task:
            task.output = ["x" * 6000]
        run.feedback("helpful", score=1.0)
    before = ledger.get_workflow("w"), ledger.executions("w"), ledger.messages("c"), ledger.feedback_of("w")
    with ledger.pool.connection() as connection:
        sequence(connection, schema="workledger")
        seal_all(connection, schema="workledger")
    events = ledger.events("w")  # before it has positions, a log has no order but that of its ids
    settings = Settings(database_url=database_url, home=tmp_path / "home", archive_url=f"file:{tmp_path}/archive")
    report = archive(settings, before=datetime.now(UTC) + timedelta(days=1))
    assert report.state.workflows == 1
    return ledger, before, events


def test_an_archived_workflow_is_given_whole(gone):
    ledger, (workflow, executions, messages, feedback), events = gone
    found = ledger.archived("w")
    assert (found.workflow, found.executions, found.messages, found.feedback) == (
        workflow,
        executions,
        messages,
        feedback,
    )
    assert [event.event_id for event in ledger.events("w")[:-1]] == [event.event_id for event in events]
    with pytest.raises(NotFound):
        ledger.archived("never")


def test_a_read_of_it_says_where_it_is(gone):
    ledger, *_ = gone
    reads = (ledger.get_workflow, ledger.executions, ledger.timeline, ledger.feedback_of, ledger.usage)
    for read in reads:
        with pytest.raises(NotFound, match=r"workflow 'w' is archived in file://.*/workflows\.parquet") as caught:
            read("w")
        assert caught.value.url.endswith("/workflows.parquet")
    with pytest.raises(NotFound, match="conversation 'c' is archived in"):
        ledger.messages("c")


def test_what_never_was_is_empty_as_ever(gone):
    ledger, *_ = gone
    assert ledger.executions("never") == ledger.feedback_of("never") == ledger.messages("never") == []
    assert ledger.events("never") == []
