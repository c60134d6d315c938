"""Tokens and costs add up by workflow and by conversation, and no call is counted twice."""

from decimal import Decimal

import pytest

from workledger import Usage
from workledger.flows import verify

MINI = Usage(model="gpt-4o-mini", input_tokens=1000, output_tokens=100)
LARGE = Usage(model="gpt-4o", input_tokens=10, output_tokens=20)
UNKNOWN = Usage(model="own", input_tokens=5, output_tokens=5)


def call(run, usage, parent=None):
    with (parent or run).llm("call") as execution:
        execution.usage = usage


def test_a_workflow_adds_up_its_calls_by_model_the_dearest_first(ledger):
    with ledger.start_workflow("w") as run:
        for usage in (MINI, MINI, LARGE, UNKNOWN):
            call(run, usage)
    total = ledger.usage(run.workflow_id)
    assert [(usage.model, usage.calls, usage.input_tokens) for usage in total.by_model] == [
        ("gpt-4o-mini", 2, 2000),
        ("gpt-4o", 1, 10),
        ("own", 1, 5),
    ]
    assert (total.calls, total.input_tokens, total.output_tokens) == (4, 2015, 225)
    assert total.cost_usd == Decimal("0.00042") + Decimal("0.000225")
    assert total.calls_without_cost == 1


def test_a_call_reported_on_its_execution_and_its_message_counts_once(ledger):
    with ledger.start_workflow("w") as run:
        with run.llm("call") as execution:
            execution.usage = MINI
            run.message("assistant", "inside", usage=MINI)
        run.message("assistant", "after", usage=MINI)
    assert ledger.usage(run.workflow_id).calls == 1
    assert ledger.conversation(run.workflow_id).usage().calls == 1


def test_messages_count_where_no_execution_reports(ledger):
    with ledger.start_workflow("w") as run:
        run.message("assistant", "a", usage=MINI)
        run.message("user", "b")
        run.message("assistant", "c", usage=LARGE)
    assert ledger.usage(run.workflow_id).calls == 2


@pytest.mark.parametrize("between", [0, 1, 3])
def test_of_executions_within_each_other_the_innermost_that_report_count(ledger, between):
    with ledger.start_workflow("w") as run:
        with run.agent("agent") as agent:
            agent.usage = Usage(input_tokens=2000, output_tokens=200, cost_usd=1)
            parent = agent
            for _ in range(between):
                parent = parent.task("step").__enter__()
            call(run, MINI, parent)
            call(run, MINI, parent)
        with run.agent("whole") as whole:
            whole.usage = LARGE
    total = ledger.usage(run.workflow_id)
    assert [(usage.model, usage.calls) for usage in total.by_model] == [("gpt-4o", 1), ("gpt-4o-mini", 2)] or [
        (usage.model, usage.calls) for usage in total.by_model
    ] == [("gpt-4o-mini", 2), ("gpt-4o", 1)]


def test_the_workflows_that_a_workflow_started_are_added_on_request(ledger):
    with ledger.start_workflow("parent") as parent:
        call(parent, MINI)
        with ledger.start_workflow("child") as child:
            call(child, MINI)
            with ledger.start_workflow("grandchild") as grandchild:
                call(grandchild, LARGE)
    assert ledger.usage(parent.workflow_id).calls == 1
    assert ledger.usage(parent.workflow_id, with_children=True).calls == 3


def test_a_conversation_adds_up_all_its_workflows_and_branches(ledger):
    chat = ledger.conversation("c")
    chat.add("assistant", "alone", usage=LARGE)
    chat.add("assistant", "again", usage=LARGE, parent_seq=0)
    chat.pop()
    with ledger.start_workflow("talks", conversation_id="c") as run:
        call(run, MINI)
        run.message("assistant", "x", usage=MINI)
    with ledger.start_workflow("quiet", conversation_id="c") as run:
        run.message("assistant", "y", usage=UNKNOWN)
    with ledger.start_workflow("elsewhere") as run:
        call(run, MINI)
        chat.add("assistant", "z", usage=LARGE)
    assert {usage.model: usage.calls for usage in chat.usage().by_model} == {"gpt-4o": 3, "gpt-4o-mini": 1, "own": 1}


def test_nothing_used_is_nothing(ledger):
    with ledger.start_workflow("w") as run, run.task("t"):
        pass
    total = ledger.usage(run.workflow_id)
    assert (total.by_model, total.calls, total.cost_usd) == ((), 0, 0)
    assert ledger.conversation("empty").usage().by_model == ()


def test_tokens_and_computed_costs_can_be_rebuilt_from_the_log(ledger):
    with ledger.start_workflow("w") as run:
        for usage in (MINI, UNKNOWN, Usage(model="m", input_tokens=1, cost_usd=Decimal("0.10"))):
            call(run, usage)
            run.message("assistant", "x", usage=usage)
    with ledger.pool.connection() as connection, verify.one_moment(connection):
        assert verify.check_state(connection, schema="workledger").faults == []
