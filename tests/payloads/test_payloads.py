"""A large value is stored once, small, and never given back as anything but what it was."""

import pytest

from support.changes import complete, done, make, start, task
from workledger.errors import StoreCorrupted
from workledger.flows import verify
from workledger.model.ids import new_id
from workledger.model.payload import OFFLOAD_BYTES

PROMPT = {"role": "system", "content": "You are a careful assistant. " * 400}


def test_the_same_system_prompt_in_ten_thousand_runs_is_stored_once(ledger, owner):
    for _ in range(100):
        changes = []
        for _ in range(100):
            workflow_id = new_id()
            changes += [start(workflow_id=workflow_id, input=PROMPT), complete(workflow_id=workflow_id)]
        ledger.recorder.record_all(changes)
    assert owner.execute("SELECT count(*) FROM workflows").fetchone() == (10_000,)
    assert owner.execute("SELECT count(*), sum(octet_length(body)) < 1000 FROM payloads").fetchone() == (1, True)
    assert ledger.get_workflow(workflow_id).input_data == PROMPT


def test_a_value_is_moved_aside_above_the_threshold_wherever_it_stands(ledger, owner, large):
    value = [large(n) for n in range(6)]
    with ledger.start_workflow("w", input=value[0]) as run:
        with run.task("t", input=value[1]) as execution:
            execution.output = value[2]
        run.message({"role": "user", "content": value[3], "tool_calls": value[4]})
        run.event("cache.filled", {"what": value[5], "small": "x" * (OFFLOAD_BYTES - 2)})
        run.output = value[2]
    assert owner.execute("SELECT count(*) FROM payloads").fetchone() == (6,)
    assert owner.execute("SELECT max(octet_length(payload::text)) < 5000 FROM events").fetchone() == (True,)
    workflow, (execution,) = ledger.get_workflow(run.workflow_id), ledger.executions(run.workflow_id)
    assert [workflow.input_data, workflow.output_data] == [value[0], value[2]]
    assert [execution.input_data, execution.output_data] == [value[1], value[2]]
    assert run.messages()[0].body == {"role": "user", "content": value[3], "tool_calls": value[4]}


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE payloads SET body = set_byte(body, octet_length(body) - 1, 0)",
        "UPDATE payloads SET body = substr(body, 1, octet_length(body) / 2)",
        "UPDATE payloads SET body = 'nonsense'",
        "UPDATE payloads SET codec = 'json'",
        "UPDATE payloads SET body = convert_to('\"another\"', 'UTF8'), codec = 'json'",
        "DELETE FROM payloads",
    ],
)
@pytest.mark.parametrize("read", ["get_workflow", "executions", "messages"])
def test_a_stored_value_that_was_changed_is_never_given_back(ledger, owner, large, damage, read):
    with ledger.start_workflow("w", input=large()) as run:
        with run.task("t", input=large()):
            pass
        run.message("user", large())
    owner.execute(damage)
    with pytest.raises(StoreCorrupted):
        getattr(ledger, read)(run.workflow_id)


def test_a_value_is_stored_with_what_refers_to_it_or_not_at_all(ledger, owner, large):
    with pytest.raises(ZeroDivisionError), owner.transaction(), ledger.joining(owner):
        ledger.record(start(workflow_id="w", input=large()))
        1 / 0  # noqa: B018
    assert owner.execute("SELECT count(*) FROM payloads").fetchone() == (0,)


def test_every_change_with_a_large_value_can_be_repeated(ledger, owner, large):
    once = [
        start(workflow_id="w", input=large(1)),
        task(workflow_id="w", execution_id="x", input=large(2)),
        done(workflow_id="w", execution_id="x", output=large(3)),
        make("record_event", event_type="a.b", entity_type="agent", entity_id="a", payload={"v": large(4)}),
        complete(workflow_id="w", output=large(5)),
    ]
    assert [ledger.record(change).applied for change in once] == [True] * 5
    assert [ledger.record(change).applied for change in once] == [False] * 5
    with verify.one_moment(owner):
        assert verify.check_payloads(owner).counts == {"payloads": 5}
