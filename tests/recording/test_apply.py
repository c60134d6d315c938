"""A change becomes its row and its event together, once, or is refused clearly and changes nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.changes import complete, done, make, start, task, whole_workflow
from workledger.errors import Conflict, InvalidInput, InvalidTransition, NotFound, Superseded, WorkflowCancelled
from workledger.model.change import Failure
from workledger.model.ids import new_id
from workledger.operational.apply import plan

FAILURE = Failure(error_type="ValueError", error="no")


@pytest.fixture
def count(ledger):
    def count(table, where="true"):
        with ledger.pool.connection() as connection:
            return connection.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()[0]

    return count


def test_a_change_writes_its_row_and_its_event_and_queues_it_for_the_log(ledger, count):
    assert ledger.record(start(workflow_id="w1", input={"a": 1})).applied
    assert ledger.get_workflow("w1").input_data == {"a": 1}
    assert count("events", "event_type = 'workflow.started' AND entity_id = 'w1'") == 1
    assert count("event_inbox") == 1


@pytest.mark.parametrize("index", range(6))
def test_the_same_change_applied_again_answers_the_same_and_changes_nothing(ledger, count, index):
    changes = whole_workflow(tasks=2)
    for change in changes:
        ledger.record(change)
    before = ledger.get_workflow(changes[0].workflow_id)
    assert ledger.record(changes[index]).applied is False
    assert ledger.get_workflow(changes[0].workflow_id) == before
    assert count("events", "workflow_id IS NOT NULL") == len(changes)


def test_every_kind_of_change_can_be_repeated(ledger, count):
    ledger.record(start(workflow_id="w"))
    once = [
        make("register_definition", name="d", version="1", steps=["a"]),
        make("progress_workflow", workflow_id="w", state_data={"n": 1}),
        make("start_conversation", conversation_id="c"),
        make("add_message", conversation_id="c", message_id="m", message={"role": "user", "content": "hi"}),
        make("remove_messages", conversation_id="c", seqs=[1]),
        make("record_feedback", feedback_id="f", workflow_id="w", name="ok", score=1),
        make("record_event", event_type="cache.hit", entity_type="agent", entity_id="a", payload={"k": 1}),
        make("request_cancel", workflow_id="w"),
        make("fail_workflow", workflow_id="w", failure=FAILURE),
        make("resume_workflow", workflow_id="w", attempt=1),
    ]
    first = [ledger.record(change) for change in once]
    events = count("events")
    again = [ledger.record(change) for change in once]
    assert all(outcome.applied for outcome in first)
    assert not any(outcome.applied for outcome in again)
    assert [outcome.seq for outcome in first] == [outcome.seq for outcome in again]
    assert count("events") == events


def test_the_same_event_id_with_other_content_is_a_conflict(ledger):
    change = make("record_event", event_type="a.b", entity_type="agent", entity_id="x", payload={"n": 1})
    ledger.record(change)
    other = make(
        "record_event", event_type="a.b", entity_type="agent", entity_id="x", payload={"n": 2}, event_id=change.event_id
    )
    with pytest.raises(Conflict, match="different content"):
        ledger.record(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: complete(workflow_id="done"), "'done' is completed, not running"),
        (lambda: make("fail_workflow", workflow_id="done", failure=FAILURE), "is completed, not pending or running"),
        (lambda: task(workflow_id="done", execution_id="e9"), "'e9' is completed, not running"),
        (lambda: make("resume_workflow", workflow_id="done", attempt=1), "is completed"),
        (lambda: make("request_cancel", workflow_id="done"), "is completed"),
        (lambda: done(workflow_id="done", execution_id="e1"), "'e1' is completed, not running"),
    ],
)
def test_an_illegal_transition_names_both_states_and_changes_nothing(ledger, count, change, message):
    ledger.record(start(workflow_id="done"))
    ledger.record(task(workflow_id="done", execution_id="e1"))
    ledger.record(done(workflow_id="done", execution_id="e1", output=1))
    ledger.record(complete(workflow_id="done"))
    before = ledger.get_workflow("done"), ledger.executions("done"), count("events")
    with pytest.raises(InvalidTransition, match=message):
        ledger.record(change())
    assert (ledger.get_workflow("done"), ledger.executions("done"), count("events")) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda: complete(workflow_id="nope"),
        lambda: task(workflow_id="nope", execution_id="e"),
        lambda: done(workflow_id="nope", execution_id="nope"),
        lambda: make("add_message", conversation_id="nope", message_id="m", message={"role": "user"}),
    ],
)
def test_what_does_not_exist_is_not_found(ledger, change):
    with pytest.raises(NotFound, match="nope"):
        ledger.record(change())


def test_an_existing_id_is_a_conflict(ledger):
    ledger.record(start(workflow_id="w"))
    ledger.record(task(workflow_id="w", execution_id="e"))
    for change in (start(workflow_id="w"), task(workflow_id="w", execution_id="e")):
        with pytest.raises(Conflict, match="already exists"):
            ledger.record(change)


def test_a_worker_that_was_away_while_its_workflow_was_resumed_is_superseded(ledger):
    ledger.record(start(workflow_id="w"))
    ledger.record(make("resume_workflow", workflow_id="w", attempt=1))
    for change in (complete(workflow_id="w", attempt=1), task(workflow_id="w", execution_id="e", attempt=1)):
        with pytest.raises(Superseded, match="attempt 2"):
            ledger.record(change)
    assert ledger.record(complete(workflow_id="w", attempt=2)).applied


def test_no_task_starts_once_its_workflow_was_asked_to_stop(ledger):
    ledger.record(start(workflow_id="w"))
    ledger.record(make("request_cancel", workflow_id="w", reason="enough"))
    with pytest.raises(WorkflowCancelled, match="asked to stop"):
        ledger.record(task(workflow_id="w", execution_id="e"))


def test_a_refused_change_in_a_batch_fails_alone(ledger, count):
    good, bad = whole_workflow(), complete(workflow_id="nope")
    outcomes = ledger.recorder.record_each([*good, bad])
    assert all(outcome.applied for outcome in outcomes[:-1])
    assert isinstance(outcomes[-1], NotFound)
    assert count("workflows", "status = 'completed'") == 1


def test_a_change_that_postgresql_refuses_fails_alone(ledger, count):
    good = whole_workflow()
    bad = done(workflow_id="w", execution_id="e", execution_time_ms=-1.0)
    ledger.record(start(workflow_id="w"))
    ledger.record(task(workflow_id="w", execution_id="e"))
    outcomes = ledger.recorder.record_each([*good, bad])
    assert all(outcome.applied for outcome in outcomes[:-1])
    assert isinstance(outcomes[-1], InvalidInput)
    assert count("task_executions", "status = 'running'") == 1


def test_all_or_nothing_means_nothing_on_a_refusal(ledger, count):
    with pytest.raises(NotFound):
        ledger.recorder.record_all([*whole_workflow(), complete(workflow_id="nope")])
    assert count("workflows") == 0
    assert count("events") == 0


def test_progress_is_kept_true(ledger):
    changes = whole_workflow(tasks=3)
    for change in changes[:-2]:
        ledger.record(change)
    workflow = ledger.get_workflow(changes[0].workflow_id)
    assert (workflow.current_step, workflow.completed_steps) == ("t", 2)
    for change in changes[-2:]:
        ledger.record(change)
    workflow = ledger.get_workflow(changes[0].workflow_id)
    assert (workflow.completed_steps, workflow.total_steps) == (3, 3)


def test_a_run_of_the_last_century_makes_its_own_partition(ledger, count):
    from datetime import UTC, datetime

    long_ago = datetime(1998, 5, 17, 12, tzinfo=UTC)
    ledger.record(start(workflow_id="old", at=long_ago))
    assert ledger.get_workflow("old").created_at == long_ago
    assert count("events_1998_05") == 1


def test_null_output_is_not_the_same_as_no_output(ledger):
    ledger.record(start(workflow_id="w"))
    ledger.record(complete(workflow_id="w", output=None))
    with ledger.pool.connection() as connection:
        row = connection.execute("SELECT output_data IS NULL, output_data::text FROM workflows").fetchone()
    assert row == (False, "null")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), max_size=30))
def test_the_plan_keeps_the_order_of_every_workflow(picks):
    streams = [whole_workflow(tasks=3) for _ in range(4)]
    changes = []
    for stream, _ in picks:
        if streams[stream]:
            changes.append(streams[stream].pop(0))
    planned = [change for _, group in plan(changes) for change in group]
    assert sorted(change.event_id for change in planned) == sorted(change.event_id for change in changes)
    for workflow_id in {change.workflow_id for change in changes}:
        wanted = [change.event_id for change in changes if change.workflow_id == workflow_id]
        assert [change.event_id for change in planned if change.workflow_id == workflow_id] == wanted


def test_no_statement_of_a_plan_has_two_changes_of_one_workflow():
    changes = [change for pair in zip(*(whole_workflow() for _ in range(5)), strict=True) for change in pair]
    for _, group in plan(changes):
        assert len({change.workflow_id for change in group}) == len(group)


def test_messages_of_one_batch_get_their_seq_in_order(ledger):
    ledger.record(make("start_conversation", conversation_id="c"))
    messages = [
        make("add_message", conversation_id="c", message_id=new_id(), message={"role": "user", "content": str(n)})
        for n in range(20)
    ]
    outcomes = ledger.recorder.record_all(messages)
    assert [outcome.seq for outcome in outcomes] == list(range(1, 21))
    assert [message.body["content"] for message in ledger.messages("c")] == [str(n) for n in range(20)]
