"""Whatever is handed to a public write is kept and given back as it was, or refused by name; the record stays sound."""

import math
from decimal import Decimal

import pytest

from support.changes import make
from workledger import Usage
from workledger.errors import InvalidInput
from workledger.flows.verify import check_events, check_log, check_state, one_moment
from workledger.log.sequencer import sequence

MEGABYTE = 1_000_000
TEXTS = {
    "nul": "a\0b",
    "half a pair": "\ud83d",
    "megabyte": "x" * MEGABYTE,
    "escapes": "\\u0000 \\ud83d \\x00",
    "controls": "\x01\x1f\x7f\x9f\u2028\ufdd0\uffff",
    "bidi": "\u202eabc\u2066",
    "owl": "🦉" * 1000,
    "sql": "'; DROP TABLE workflows; --",
    "empty": "",
}
VALUES = {
    **TEXTS,
    "nan": float("nan"),
    "infinity": float("inf"),
    "big": 2**200,
    "deep": {"a": [{"b": [TEXTS["nul"], {"": None, "\0": "\ud800"}]}]},
    "tag of ours": {"$workledger": "nan"},
    "keys": {"": 1, "\0": 2, "\ud83d": 3, "x" * 1000: 4},
}


def same(found, given):
    if isinstance(given, float) and math.isnan(given):
        return isinstance(found, float) and math.isnan(found)
    return found == given


def assert_sound(ledger):
    with ledger.pool.connection() as connection:
        sequence(connection, schema="workledger")
        with one_moment(connection):
            checks = [check_state(connection, schema="workledger"), check_log(connection), check_events(connection)]
    assert [str(fault) for check in checks for fault in check.faults] == []


def test_a_value_comes_back_from_every_place_that_takes_one(ledger):
    changed = [
        (name, place)
        for name, value in VALUES.items()
        for place, found in enumerate(kept_values(ledger, name, value))
        if not same(found, value)
    ]
    assert changed == []
    assert_sound(ledger)


def kept_values(ledger, name, value):
    with ledger.start_workflow("w", workflow_id=name, input=value, metadata={"v": value}) as run:
        run.progress(state_data={"v": value}, metadata={"more": value})
        with run.task("t", input=value, metadata={"v": value}) as task:
            task.output = value
        run.message("user", value, custom=value)
        run.message({"role": "assistant", "content": None, "tool_calls": [value]})
        run.event("app.said", {"v": value})
        run.output = value
    workflow = ledger.get_workflow(name)
    (execution,) = ledger.executions(name)
    first, second = run.messages()
    return [
        workflow.input_data,
        workflow.output_data,
        workflow.state_data["v"],
        workflow.metadata["v"],
        workflow.metadata["more"],
        execution.input_data,
        execution.output_data,
        execution.metadata["v"],
        first.body["content"],
        first.body["custom"],
        second.body["tool_calls"][0],
    ]


def test_a_text_comes_back_from_every_place_that_takes_one(ledger):
    changed = [
        (name, place)
        for name, text in TEXTS.items()
        for place, found in enumerate(kept_texts(ledger, name, text))
        if found != text
    ]
    assert changed == []
    assert_sound(ledger)


def kept_texts(ledger, name, text):
    with pytest.raises(RuntimeError), ledger.start_workflow("w", workflow_id=name) as run:
        run.feedback("f", label=text, comment=text, source=text)
        run.message("user", text, usage=Usage(output_tokens=1, model=text), tool_call_id=text, name=text)
        ledger.cancel(name, reason=text)
        ledger.record(make("start_workflow", workflow_id=f"{name}-2", name="w"))
        ledger.record(make("start_execution", workflow_id=f"{name}-2", execution_id=name, task_name="t", model=text))
        raise RuntimeError(text)
    workflow = ledger.get_workflow(name)
    (execution,) = ledger.executions(f"{name}-2")
    (judgement,) = ledger.feedback_of(name)
    (message,) = run.messages()
    return [
        workflow.error,
        execution.model,
        judgement.label,
        judgement.comment,
        judgement.source,
        message.body["tool_call_id"],
        message.body["name"],
        message.model,
    ]


NAMED = {
    "workflow id": lambda ledger, text: ledger.start_workflow("w", workflow_id=text).__enter__(),
    "workflow name": lambda ledger, text: ledger.start_workflow(text).__enter__(),
    "workflow type": lambda ledger, text: ledger.start_workflow("w", workflow_type=text or "\0").__enter__(),
    "tag": lambda ledger, text: ledger.start_workflow("w", tags=[text]).__enter__(),
    "subject": lambda ledger, text: ledger.start_workflow("w", subject=text or "\0").__enter__(),
    "trace id": lambda ledger, text: ledger.start_workflow("w", trace_id=text or "\0").__enter__(),
    "parent": lambda ledger, text: ledger.start_workflow("w", parent_workflow_id=text or "\0").__enter__(),
    "conversation": lambda ledger, text: ledger.start_workflow("w", conversation_id=text or "\0").__enter__(),
    "definition version": lambda ledger, text: ledger.record(make("register_definition", name="d", version=text)),
    "definition step": lambda ledger, text: ledger.record(
        make("register_definition", name="d", version="1", steps=[text])
    ),
    "task name": lambda ledger, text: ledger.start_workflow("w").task(text).__enter__(),
    "conversation id": lambda ledger, text: ledger.conversation(text),
    "role": lambda ledger, text: ledger.conversation("c").add(text, "hi"),
    "message id": lambda ledger, text: ledger.conversation("c").add("user", "hi", message_id=text or "\0"),
    "event type": lambda ledger, text: ledger.event(text, entity_type="agent", entity_id="a"),
    "entity type": lambda ledger, text: ledger.event("a.b", entity_type=text, entity_id="a"),
    "entity id": lambda ledger, text: ledger.event("a.b", entity_type="agent", entity_id=text),
    "event id": lambda ledger, text: ledger.event("a.b", entity_type="agent", entity_id="a", event_id=text),
    "feedback name": lambda ledger, text: ledger.feedback(text, workflow_id="w", score=1),
    "feedback of": lambda ledger, text: ledger.feedback("f", workflow_id=text or "\0", score=1),
    "cancel": lambda ledger, text: ledger.cancel(text),
}


def test_a_name_is_taken_as_it_is_or_refused_and_nothing_else(ledger):
    for place, write in NAMED.items():
        for text in ["a\0b", "\ud83d", "x" * MEGABYTE, "\x1f", "", "x" * 256]:
            with pytest.raises(InvalidInput) as refused:
                write(ledger, text)
            assert refused.value.field, place
            assert len(str(refused.value)) < 500, place
    assert_sound(ledger)


AMOUNTS = {
    "score": lambda ledger, n: ledger.feedback("f", workflow_id="w", score=n),
    "cost": lambda ledger, n: ledger.conversation("c").add("user", "x", usage=Usage(cost_usd=n)),
}
COUNTS = {
    "total steps": lambda ledger, n: ledger.record(make("progress_workflow", workflow_id="w", total_steps=n)),
    "input tokens": lambda ledger, n: ledger.conversation("c").add("user", "x", usage=Usage(input_tokens=n)),
    "retries": lambda ledger, n: make(
        "start_execution", execution_id="x", workflow_id="w", task_name="t", retry_count=n
    ),
    "parent seq": lambda ledger, n: ledger.conversation("c").add("user", "x", parent_seq=n),
}
NO_NUMBERS = [float("nan"), Decimal("NaN"), Decimal("sNaN"), float("inf"), "many", 10**400]


def test_a_number_that_cannot_be_kept_is_refused_by_name(ledger):
    with ledger.start_workflow("w", workflow_id="w"):
        tries = [(write, n) for write in AMOUNTS.values() for n in NO_NUMBERS]
        tries += [(write, n) for write in COUNTS.values() for n in [*NO_NUMBERS, -1, 2**63, 1.5]]
        for write, number in tries:
            with pytest.raises(InvalidInput) as refused:
                write(ledger, number)
            assert refused.value.field
            assert len(str(refused.value)) < 500
        ledger.conversation("c").add("user", "after it")
