"""Whatever happens, and whatever is refused, the log makes the state again, column by column."""

from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.changes import make
from workledger.errors import WorkledgerError
from workledger.flows.as_of import as_of
from workledger.flows.verify import check_state, one_moment
from workledger.model.change import Failure, Usage
from workledger.model.ids import new_id
from workledger.model.status import Kind
from workledger.operational.apply import apply_in_transaction, apply_one
from workledger.postgres.connection import connect

FAILURE = Failure(error_type="ValueError", error="no \0", error_traceback="…")
USAGE = st.none() | st.builds(Usage, input_tokens=st.integers(0, 9), cost_usd=st.sampled_from([None, 0.1, 0.30]))
VALUE = (
    st.none() | st.integers() | st.text(max_size=5) | st.floats() | st.just({"a": [1.0, None]}) | st.just("x" * 5000)
)
ATTEMPT = st.none() | st.integers(1, 3)
TIME_MS = st.none() | st.floats(0, 1e6)


def workflow_changes(here):
    """Everything that can be done to a workflow, whether or not it is its turn."""
    return [
        st.builds(lambda v, p, n: make("start_workflow", name="w", input=v, pending=p, total_steps=n, **here),
                  VALUE, st.booleans(), st.integers(0, 3)),
        st.builds(lambda v, s, n, a: make("progress_workflow", state_data={"v": v}, current_step=s, total_steps=n,
                                          attempt=a, metadata={"k": v}, **here),
                  VALUE, st.sampled_from([None, "a", "b"]), st.none() | st.integers(0, 5), ATTEMPT),
        st.builds(lambda v, t, a: make("complete_workflow", output=v, execution_time_ms=t, attempt=a, **here),
                  VALUE, TIME_MS, ATTEMPT),
        st.builds(lambda t: make("fail_workflow", failure=FAILURE, execution_time_ms=t, **here), TIME_MS),
        st.builds(lambda: make("request_cancel", reason="stop", **here)),
        st.builds(lambda: make("cancel_workflow", reason="stop", **here)),
        st.builds(lambda a: make("resume_workflow", attempt=a, worker_id="k", **here), st.integers(1, 3)),
        st.builds(lambda s: make("record_feedback", feedback_id=new_id(), name="f", score=s, **here), st.floats(0, 1)),
        st.builds(lambda v: make("record_event", event_type="own", entity_type="t", entity_id="i", payload={"v": v},
                                 **here), VALUE),
    ]  # fmt: skip


def task_changes(here, execution_id):
    """Everything that can be done to an attempt at a task."""
    here = {**here, "execution_id": execution_id}
    return [
        st.builds(lambda v, k, a, p: make("start_execution", task_name="t", input=v, kind=k, attempt=a,
                                          parent_execution_id=p, **here),
                  VALUE, st.sampled_from(list(Kind)), ATTEMPT, st.sampled_from([None, "p"])),
        st.builds(lambda v, t, u: make("complete_execution", output=v, execution_time_ms=t, usage=u, **here),
                  VALUE, TIME_MS, USAGE),
        st.builds(lambda u: make("fail_execution", failure=FAILURE, usage=u, **here), USAGE),
        st.builds(lambda: make("cancel_execution", reason="stop", **here)),
    ]  # fmt: skip


def talk_changes(here, conversation_id):
    """Everything that can be said and taken back in a conversation."""
    there = {"conversation_id": conversation_id}
    return [
        st.builds(lambda: make("start_conversation", title="t", **there)),
        st.builds(lambda v, u: make("add_message", message_id=new_id(), message={"role": "user", "content": v, "x": v},
                                    usage=u, **there, **here), VALUE, USAGE),
        st.builds(lambda s: make("remove_messages", seqs=s, **there), st.lists(st.integers(1, 4), min_size=1)),
    ]  # fmt: skip


def histories():
    """Lists of changes to a few workflows, attempts and conversations, most of them in turn, some not."""

    def of(names):
        changes = []
        for workflow_id, execution_ids, conversation_id in names:
            here = {"workflow_id": workflow_id}
            changes += workflow_changes(here)
            for execution_id in execution_ids:
                changes += task_changes(here, execution_id)
            changes += talk_changes(here, conversation_id)
        # Beginnings first, so that there is something to go on with.
        beginnings = st.tuples(*(changes[at] for at in range(0, len(changes), len(changes) // len(names))))
        return st.tuples(beginnings, st.lists(st.one_of(changes), min_size=5, max_size=40)).map(
            lambda both: [*both[0], *both[1]]
        )

    fresh = st.builds(lambda: [(new_id(), [new_id(), new_id()], new_id()) for _ in range(2)])
    return fresh.flatmap(of)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=histories(), sizes=st.lists(st.integers(1, 8), min_size=1))
def test_after_any_history_the_log_makes_the_state_that_stands(log, changes, sizes):
    with connect(log.url, recording=True) as recording:
        waiting, turn = list(changes), 0
        while waiting:
            size = sizes[turn % len(sizes)]
            batch, waiting, turn = waiting[:size], waiting[size:], turn + 1
            if size == 1:
                with suppress(WorkledgerError):  # out of turn: nothing was recorded, and nothing changed
                    apply_one(recording, batch[0])
            else:
                apply_in_transaction(recording, batch)
        log.sequence()
        with one_moment(recording):
            check = check_state(recording, schema=log.schema)
        assert check.ok, check.faults
        workflow_id = changes[0].workflow_id
        now = rows(log.connection, workflow_id)
        with as_of(recording, log.head, schema=log.schema, workflow_id=workflow_id):
            assert rows(recording, workflow_id) == now


def rows(connection, workflow_id) -> list:
    return [
        connection.execute(
            f"SELECT t::text FROM {table} t WHERE workflow_id = %s ORDER BY 1", (workflow_id,)
        ).fetchall()
        for table in ("workflows", "task_executions", "messages", "feedback")
    ]
