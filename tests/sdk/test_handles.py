"""Recording without decorators: workflow and execution handles, conversations, events, feedback."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from workledger import Usage
from workledger.errors import Conflict, InvalidInput
from workledger.log.reader import of_workflow
from workledger.model.jsonvalue import TAG


def test_the_example_of_the_design(ledger):
    with ledger.start_workflow("import", workflow_id="2026-11-22", input={"file": "a.csv"}) as run:
        with run.task("load", input="a.csv") as task:
            task.output = [1, 2]
        run.message("assistant", "loaded")
        run.event("cache.hit", {"key": "a.csv"})
        run.feedback("helpful", score=1)
        run.output = "done"
    workflow = ledger.get_workflow("2026-11-22")
    assert (workflow.status, workflow.output_data, workflow.conversation_id) == ("completed", "done", "2026-11-22")
    assert ledger.executions("2026-11-22")[0].output_data == [1, 2]
    assert [message.body for message in ledger.messages("2026-11-22")] == [{"role": "assistant", "content": "loaded"}]
    assert [(f.name, f.score) for f in ledger.feedback_of("2026-11-22")] == [("helpful", 1.0)]
    with ledger.pool.connection() as connection:
        types = [event.event_type for event in of_workflow(connection, "2026-11-22")]
    assert "cache.hit" in types


def test_handles_work_with_async_with(ledger):
    async def main():
        async with ledger.start_workflow("async") as run, run.llm("model", model="m1") as call:
            call.output = "hi"
            call.usage = Usage(input_tokens=5, output_tokens=2, cost_usd=0.001)
        return run.workflow_id

    (call,) = ledger.executions(asyncio.run(main()))
    assert (call.kind, call.model, call.input_tokens, call.output_tokens) == ("llm", "m1", 5, 2)
    assert float(call.cost_usd) == 0.001


def test_an_exception_in_a_block_is_recorded_and_goes_on(ledger):
    with pytest.raises(ZeroDivisionError), ledger.start_workflow("w", workflow_id="w") as run, run.task("t"):
        _ = 1 / 0
    assert ledger.get_workflow("w").error_type == "ZeroDivisionError"
    assert ledger.executions("w")[0].status == "failed"


MESSAGES = [
    {"role": "system", "content": "long prompt " * 1000},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "1", "name": "f", "content": ""},
    {"role": "assistant", "tool_calls": []},
    {"role": "user", "content": [{"type": "text", "text": "\0"}], "name": None, "weight": 0},
    {"role": "assistant", "content": "x", "refusal": None, "audio": {"id": 2**70}, TAG: "not a tag"},
    {"role": "tool", "tool_call_id": 5, "content": "number as id"},
]


def test_messages_come_back_object_for_object(ledger):
    conversation = ledger.conversation("c")
    assert [conversation.add(message) for message in MESSAGES] == list(range(1, len(MESSAGES) + 1))
    assert [dict(message.body) for message in conversation.messages()] == MESSAGES


def test_the_same_large_prompt_is_stored_once(ledger):
    for n in range(20):
        ledger.conversation(f"c{n}").add(MESSAGES[0])
    with ledger.pool.connection() as connection:
        assert connection.execute("SELECT count(*) FROM payloads").fetchone() == (1,)


def test_seqs_are_dense_under_concurrent_writers(ledger):
    conversation = ledger.conversation("c")
    with ThreadPoolExecutor(16) as pool:
        seqs = list(pool.map(lambda n: conversation.add("user", str(n)), range(200)))
    assert sorted(seqs) == list(range(1, 201))


def test_pop_and_clear_take_messages_out_and_the_log_keeps_them(ledger):
    conversation = ledger.conversation("c")
    for n in range(3):
        conversation.add("user", str(n))
    assert conversation.pop().body["content"] == "2"
    assert conversation.clear() == 2
    assert conversation.messages() == []
    assert conversation.pop() is None
    assert conversation.add("user", "again") == 4


def test_an_event_of_the_ledgers_own_type_is_refused_as_a_plain_event(ledger):
    with pytest.raises(InvalidInput, match="moves state"):
        ledger.event("workflow.completed", entity_type="workflow", entity_id="w")


def test_feedback_that_says_nothing_is_refused(ledger):
    with ledger.start_workflow("w") as run, pytest.raises(InvalidInput, match="says nothing"):
        run.feedback("empty")


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused(ledger, score):
    with ledger.start_workflow("w") as run, pytest.raises(InvalidInput, match="finite"):
        run.feedback("s", score=score)


def test_a_completed_workflow_is_not_started_again(ledger):
    with ledger.start_workflow("w", workflow_id="w"):
        pass
    with pytest.raises(Conflict, match="completed already"), ledger.start_workflow("w", workflow_id="w"):
        raise AssertionError("not entered")


def test_a_twenty_megabyte_value_is_refused_by_a_direct_call(ledger):
    with ledger.start_workflow("w") as run, pytest.raises(InvalidInput, match="limit is 16,777,216"):
        run.event("too.large", {"body": "x" * 20_000_000})


def test_an_id_of_300_characters_is_refused(ledger):
    with pytest.raises(InvalidInput, match="300 characters"):
        ledger.start_workflow("w", workflow_id="x" * 300)


@pytest.mark.parametrize(
    "payload",
    [
        {TAG: "payload", "digest": "00", "size": 1},
        {TAG: "float", "value": "NaN"},
        {TAG: {"nested": "\0"}, "\0": 1},
        {"plain": None},
    ],
)
def test_the_payload_of_an_event_comes_back_whatever_its_keys_are(ledger, payload):
    with ledger.start_workflow("w") as run:
        event_id = run.event("odd.keys", payload)
    with ledger.pool.connection() as connection:
        (event,) = [event for event in of_workflow(connection, run.workflow_id) if event.event_id == event_id]
    assert event.payload == payload
