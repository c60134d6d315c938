"""The past reads like the present: the state at any position, for whoever looks, and for nobody else."""

import random
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import changes
from support.changes import complete, done, make, start, task
from workledger.errors import InvalidInput, NotFound, StoreCorrupted, WorkledgerError
from workledger.flows.as_of import as_of, position_at
from workledger.log import reader
from workledger.model.change import Failure
from workledger.model.ids import new_id

TABLES = {
    "definitions": "name, version",
    "workflows": "workflow_id",
    "task_executions": "execution_id",
    "conversations": "conversation_id",
    "messages": "message_id",
    "feedback": "feedback_id",
}


def state(connection) -> dict[str, list]:
    """Every row of every state table, as text."""
    return {
        table: [row for (row,) in connection.execute(f"SELECT t::text FROM {table} t ORDER BY {key}").fetchall()]
        for table, key in TABLES.items()
    }


def story() -> list:
    """One of everything that a workflow and its conversation can go through."""
    workflow_id, conversation_id, other = new_id(), new_id(), new_id()
    one, two = new_id(), new_id()
    failure = Failure(error_type="ValueError", error="no", error_traceback="Traceback")
    here = {"workflow_id": workflow_id}
    said = {"conversation_id": conversation_id, **here}
    return [
        make("register_definition", name="w", version="1", steps=["a", "b"]),
        start(**here, pending=True, input={"n": 1}, tags=["t"], total_steps=2),
        start(**here, input={"n": 1}),
        make("start_conversation", **said, title="talk"),
        make("progress_workflow", **here, current_step="a", state_data={"at": 1}, conversation_id=conversation_id),
        make("add_message", message_id=new_id(), message={"role": "user", "content": "hello"}, **said),
        task(**here, execution_id=one, task_name="a", input=[1]),
        done(**here, execution_id=one, output={"ok": True}, execution_time_ms=1.5),
        task(**here, execution_id=two, task_name="b"),
        make("add_message", message_id=new_id(), message={"role": "assistant", "content": "hi"}, **said),
        make("fail_execution", **here, execution_id=two, failure=failure),
        make("fail_workflow", **here, failure=failure),
        make("resume_workflow", **here, attempt=1),
        make("request_cancel", **here, reason="enough"),
        make("remove_messages", conversation_id=conversation_id, seqs=[2]),
        make("cancel_workflow", **here, reason="enough"),
        make("record_feedback", feedback_id=new_id(), name="helpful", score=1.0, **here),
        start(workflow_id=other),
        complete(workflow_id=other, output="end"),
    ]


@pytest.fixture
def told(any_log):
    """A log with stories in it, and the state as it was after each position, written down as it happened."""
    states = [state(any_log.connection)]
    for change in [*story(), *story()[1:]]:
        any_log.record(change)
        any_log.sequence()
        states.append(state(any_log.connection))
    return any_log, states


def test_the_state_at_every_position_is_what_it_was(told):
    log, states = told
    assert log.head == len(states) - 1
    with log.connect() as connection:
        for position in range(log.head + 1):
            with as_of(connection, position, schema=log.schema) as past:
                assert state(connection) == states[position], position
                assert past.position == position


def test_one_workflow_can_be_seen_without_replaying_the_rest(told):
    log, _ = told
    (workflow_id, conversation_id) = log.connection.execute(
        "SELECT workflow_id, conversation_id FROM workflows WHERE conversation_id IS NOT NULL ORDER BY created_at LIMIT 1"
    ).fetchone()
    for position in range(2, log.head + 1, 5):
        with log.connect() as one, log.connect() as two:
            with (
                as_of(one, position, schema=log.schema, workflow_id=workflow_id) as quick,
                as_of(two, position, schema=log.schema) as whole,
            ):
                assert quick.get_workflow(workflow_id) == whole.get_workflow(workflow_id)
                assert quick.executions(workflow_id) == whole.executions(workflow_id)
                assert quick.messages(conversation_id) == whole.messages(conversation_id)
                assert quick.feedback_of(workflow_id) == whole.feedback_of(workflow_id)
                assert quick.events(workflow_id) == whole.events(workflow_id)
                assert quick.workflows() == [w for w in whole.workflows() if w.workflow_id == workflow_id]


def test_every_read_is_of_the_past_and_the_log_with_it(told):
    log, _ = told
    workflow_id = reader.read(log.connection, after=1, limit=1)[0].workflow_id
    with log.connect() as connection, as_of(connection, 9, schema=log.schema) as past:
        workflow = past.get_workflow(workflow_id)
        assert (workflow.status, workflow.current_step, workflow.completed_steps) == ("running", "b", 1)
        assert workflow.input_data == {"n": 1}
        assert [execution.status for execution in past.executions(workflow_id)] == ["completed", "running"]
        assert past.count_by_status() == {
            "workflow": {"running": 1},
            "execution": {"completed": 1, "running": 1},
        }
        assert [one.workflow_id for one in past.running()] == [workflow_id]
        assert past.failed() == []
        assert len(past.messages(workflow.conversation_id)) == past.get_conversation(workflow.conversation_id).last_seq
        assert [event.position for event in past.events(workflow_id)] == [2, 3, 4, 5, 6, 7, 8, 9]
        assert reader.head(connection) == (9, 0)
        assert [event.position for event in reader.iterate(connection)] == list(range(1, 10))
        with past.connection() as lent:
            assert lent.execute("SELECT count(*) FROM events").fetchone() == (9,)


def test_what_had_not_begun_is_not_there(told):
    log, _ = told
    with log.connect() as connection, as_of(connection, 1, schema=log.schema) as past:
        assert past.workflows() == []
        with pytest.raises(NotFound):
            past.get_workflow("anything")


def test_nobody_else_sees_the_past_and_the_connection_forgets_it(told):
    log, states = told
    reads_workflows = "SELECT count(*) FROM workflows"
    with log.connect() as connection:
        before = connection.execute(reads_workflows).fetchone()
        with as_of(connection, 0, schema=log.schema):
            assert connection.execute(reads_workflows).fetchone() == (0,)
            assert state(log.connection) == states[-1]
        assert connection.execute(reads_workflows).fetchone() == before == (4,)
        assert state(connection) == states[-1]
        with as_of(connection, log.head, schema=log.schema):
            assert connection.execute(reads_workflows).fetchone() == before


def test_an_error_in_the_block_leaves_no_past_behind(told):
    log, states = told
    with log.connect() as connection:
        with pytest.raises(ZeroDivisionError), as_of(connection, 3, schema=log.schema):
            _ = 1 / 0
        assert state(connection) == states[-1]


def test_two_moments_over_one_connection_are_refused(told):
    log, _ = told
    with log.connect() as connection, as_of(connection, 3, schema=log.schema):
        with pytest.raises(WorkledgerError, match="use another"), as_of(connection, 2, schema=log.schema):
            pass
        assert reader.head(connection) == (3, 0)


def test_a_position_that_the_log_does_not_have_is_refused(told):
    log, _ = told
    for position in (-1, log.head + 1):
        with pytest.raises(InvalidInput, match="positions up to"), as_of(log.connection, position, schema=log.schema):
            pass


def test_a_past_with_holes_is_not_shown(told):
    log, _ = told
    log.alter("DELETE FROM events WHERE event_id = (SELECT event_id FROM event_positions WHERE position = 5)")
    with as_of(log.connection, 4, schema=log.schema):
        pass
    with pytest.raises(StoreCorrupted, match="positions 1 to"), as_of(log.connection, 9, schema=log.schema):
        pass


def test_large_values_are_there_in_the_past_too(log):
    workflow_id = new_id()
    log.record(start(workflow_id=workflow_id, input="x" * 50_000), complete(workflow_id=workflow_id))
    log.sequence()
    with log.connect() as connection, as_of(connection, 1, schema=log.schema) as past:
        assert past.get_workflow(workflow_id).input_data == "x" * 50_000


def test_a_reader_may_look_into_the_past(told):
    from workledger.log.roles import make_roles

    log, states = told
    make_roles(log.connection, schema=log.schema)
    with log.connect(f"{log.url}&options=-crole%3Dworkledger_reader") as connection:
        with as_of(connection, 7, schema=log.schema):
            assert state(connection) == states[7]


# -- times ------------------------------------------------------------------------------------------------------


def test_a_time_leads_to_the_last_position_recorded_by_then(log):
    for _ in range(9):
        log.record(log.own_event())
        log.sequence()
    for event in reader.read(log.connection, after=0):
        assert position_at(log.connection, event.recorded_at) == event.position
        assert position_at(log.connection, event.recorded_at - timedelta(microseconds=1)) == event.position - 1
    assert position_at(log.connection, changes.now() + timedelta(days=1)) == 9
    with pytest.raises(InvalidInput, match="no time zone"):
        position_at(log.connection, changes.now().replace(tzinfo=None))


# -- any history ------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), batches=st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_whatever_happened_in_whatever_batches_the_past_is_what_it_was(log, seed, batches):
    """Stories of several workflows, interleaved at random, recorded in batches of random sizes."""
    chance = random.Random(seed)
    stories = [story()[1:] for _ in range(3)]
    states = {log.head: state(log.connection)}
    for size in batches:
        batch = []
        while len(batch) < size and (open_ := [one for one in stories if one]):
            batch.append(chance.choice(open_).pop(0))
        if batch:
            log.record(*batch)
            log.sequence()
            states[log.head] = state(log.connection)
    with log.connect() as connection:
        for position in chance.sample(sorted(states), min(3, len(states))):
            with as_of(connection, position, schema=log.schema):
                assert state(connection) == states[position]
