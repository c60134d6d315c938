"""Functions become workflows, tasks and tools; what they do is recorded, and what they return or raise is unchanged."""

import asyncio
import inspect
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from workledger.errors import TaskTimeout
from workledger.model.jsonvalue import is_placeholder


def only(ledger, name):
    (workflow,) = ledger.workflows(name=name)
    return ledger.get_workflow(workflow.workflow_id)


def executions(ledger, name):
    return ledger.executions(only(ledger, name).workflow_id)


def test_a_workflow_of_functions_is_recorded_with_inputs_and_outputs(ledger):
    @ledger.tool
    def search(query: str) -> list[str]:
        return [query.upper()]

    @ledger.task
    def summarise(hits: list[str], *, limit: int = 3) -> str:
        return ",".join(hits[:limit])

    @ledger.workflow(version="1", steps=["summarise"], tags=["t"], workflow_type="agent")
    def research(topic: str) -> str:
        return summarise(search(topic), limit=1)

    assert research("x") == "X"
    workflow = only(ledger, "research")
    assert (workflow.status, workflow.input_data, workflow.output_data) == ("completed", {"topic": "x"}, "X")
    assert (workflow.workflow_type, workflow.tags, workflow.definition_version) == ("agent", ["t"], "1")
    assert (workflow.total_steps, workflow.completed_steps, workflow.current_step) == (1, 1, "summarise")
    tool, task = executions(ledger, "research")
    assert (tool.kind, tool.input_data, tool.output_data) == ("tool", {"query": "x"}, ["X"])
    assert (task.kind, task.input_data, task.output_data) == ("task", {"hits": ["X"], "limit": 1}, "X")
    assert task.execution_time_ms >= 0


def test_coroutine_functions_work_the_same(ledger):
    @ledger.tool
    async def search(query):
        await asyncio.sleep(0)
        return query * 2

    @ledger.workflow
    async def research(topic):
        return await asyncio.gather(*(search(topic + str(n)) for n in range(10)))

    is_coroutine_function = inspect.iscoroutinefunction if sys.version_info >= (3, 12) else asyncio.iscoroutinefunction
    assert is_coroutine_function(research)
    assert asyncio.run(research("x")) == [f"x{n}x{n}" for n in range(10)]
    assert sorted(execution.output_data for execution in executions(ledger, "research")) == sorted(
        f"x{n}x{n}" for n in range(10)
    )


def test_calls_nest_below_the_execution_that_makes_them(ledger):
    @ledger.tool
    def inner():
        return 1

    @ledger.agent
    def outer():
        return inner() + inner()

    @ledger.workflow
    def nested():
        return outer()

    assert nested() == 2
    outer_row, *inner_rows = executions(ledger, "nested")
    assert [row.parent_execution_id for row in inner_rows] == [outer_row.execution_id] * 2
    assert [row.step_key for row in inner_rows] == ["outer/inner", "outer/inner#2"]


def test_outside_of_a_workflow_a_task_is_just_a_function(ledger):
    @ledger.task
    def double(x):
        return 2 * x

    assert double(4) == 8
    assert ledger.workflows() == []


def test_an_exception_is_recorded_whole_and_reaches_the_caller_unchanged(ledger):
    error = ValueError("no \0 way \ud800")

    @ledger.task
    def broken():
        raise error

    @ledger.workflow
    def failing():
        broken()

    with pytest.raises(ValueError) as caught:
        failing()
    assert caught.value is error
    (execution,) = executions(ledger, "failing")
    for row in (execution, only(ledger, "failing")):
        assert (row.status, row.error_type, row.error) == ("failed", "ValueError", "no \0 way \ud800")
        assert "in broken" in row.error_traceback


def test_every_attempt_of_a_retried_task_has_its_row(ledger):
    calls = []

    @ledger.task(retries=3, backoff_s=0.001)
    def flaky():
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError(f"attempt {len(calls)}")
        return "ok"

    @ledger.workflow
    def retrying():
        return flaky()

    assert retrying() == "ok"
    assert [(row.retry_count, row.status, row.error) for row in executions(ledger, "retrying")] == [
        (0, "failed", "attempt 1"),
        (1, "failed", "attempt 2"),
        (2, "completed", None),
    ]
    assert only(ledger, "retrying").completed_steps == 1


def test_retries_end_with_the_last_error(ledger):
    @ledger.task(retries=1, backoff_s=0.001)
    async def hopeless():
        raise KeyError("x")

    @ledger.workflow
    async def giving_up():
        await hopeless()

    with pytest.raises(KeyError):
        asyncio.run(giving_up())
    assert len(executions(ledger, "giving_up")) == 2


def test_only_the_named_errors_are_retried(ledger):
    @ledger.task(retries=5, retry_on=ConnectionError)
    def wrong():
        raise TypeError("not that one")

    @ledger.workflow
    def picky():
        wrong()

    with pytest.raises(TypeError):
        picky()
    assert len(executions(ledger, "picky")) == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_a_task_that_takes_too_long_is_failed_as_a_timeout(ledger, is_async):
    told = threading.Event()
    if is_async:

        @ledger.task(timeout_s=0.05)
        async def slow():
            await asyncio.sleep(60)
    else:

        @ledger.task(timeout_s=0.05)
        def slow():
            told.wait(60)

    @ledger.workflow
    async def waiting():
        await slow() if is_async else slow()

    with pytest.raises(TaskTimeout, match=r"0\.05"):
        asyncio.run(waiting())
    told.set()
    (execution,) = executions(ledger, "waiting")
    assert (execution.status, execution.error_type) == ("failed", "workledger.errors.TaskTimeout")


def test_a_cancelled_coroutine_is_recorded_as_cancelled(ledger):
    @ledger.task
    async def endless(begun):
        begun.set()
        await asyncio.sleep(60)

    @ledger.workflow
    async def stopped(begun):
        await endless(begun)

    async def main():
        begun = asyncio.Event()
        task = asyncio.ensure_future(stopped(begun))
        await asyncio.wait_for(begun.wait(), 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert only(ledger, "stopped").status == "cancelled"
    assert executions(ledger, "stopped")[0].status == "cancelled"


def test_the_place_follows_threads_and_pools(ledger):
    @ledger.task
    def work(n):
        return n

    @ledger.workflow
    def spread():
        thread = threading.Thread(target=work, args=(0,))
        thread.start()
        thread.join()
        with ThreadPoolExecutor(3) as pool:
            return sorted(pool.map(work, range(1, 4)))

    assert spread() == [1, 2, 3]
    assert sorted(row.output_data for row in executions(ledger, "spread")) == [0, 1, 2, 3]


def test_methods_can_be_decorated(ledger):
    class Agent:
        def __init__(self):
            self.handle = object()

        @ledger.tool
        def look(self, where):
            return where

    @ledger.workflow
    def with_object():
        return Agent().look("here")

    assert with_object() == "here"
    assert executions(ledger, "with_object")[0].input_data == {"where": "here"}


def test_a_call_with_wrong_arguments_raises_what_python_raises(ledger):
    @ledger.task
    def strict(a):
        return a

    @ledger.workflow
    def wrong():
        return strict()

    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        wrong()
    assert executions(ledger, "wrong")[0].error_type == "TypeError"


def test_hostile_values_do_not_stop_the_recorded_program(ledger):
    loop = []
    loop.append(loop)
    values = [object(), loop, float("nan"), b"\0", {1: 2}, "\ud800", 10**400, "x" * 20_000_000]

    @ledger.tool
    def swallow(value):
        return value

    @ledger.workflow
    def hostile():
        return [swallow(value) is value for value in values]

    assert hostile() == [True] * len(values)
    rows = executions(ledger, "hostile")
    assert is_placeholder(rows[0].output_data)
    assert is_placeholder(rows[1].output_data[0])
    assert repr(rows[2].output_data) == "nan"
    assert [row.output_data for row in rows[3:7]] == [b"\0", {1: 2}, "\ud800", 10**400]
    assert is_placeholder(rows[7].output_data)
    assert rows[7].output_data["size_bytes"] == 20_000_002


def test_a_workflow_inside_a_workflow_is_its_child(ledger):
    @ledger.workflow
    def child():
        return 1

    @ledger.workflow
    def parent():
        return child()

    assert parent() == 1
    assert only(ledger, "child").parent_workflow_id == only(ledger, "parent").workflow_id


def test_a_definition_is_registered_once(ledger):
    for _ in range(2):

        @ledger.workflow(version="7", steps=["a", "b"])
        def registered():
            return None

        registered()
    with ledger.pool.connection() as connection:
        assert connection.execute("SELECT name, version, steps FROM definitions").fetchall() == [
            ("registered", "7", ["a", "b"])
        ]
