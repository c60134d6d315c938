"""Use all that a recording program can use, on a new project; says `done` and nothing else.

everything.py URL HOME
"""

import asyncio
import logging
import sys
import threading
from contextlib import suppress

import psycopg

import workledger
from workledger import Usage
from workledger.errors import Conflict, InvalidInput, TaskTimeout, WorkflowCancelled
from workledger.sdk.worker_loop import WorkerLoop

logging.getLogger("workledger").addHandler(logging.NullHandler())
logging.getLogger("asyncio").setLevel(logging.ERROR)  # in developer mode it warns of each step that takes 0.1 s
url, home = sys.argv[1:3]


def define(ledger):
    tried = set()

    @ledger.tool
    def search(query):
        return [query] * 3

    @ledger.task(retries=2, backoff_s=0.001)
    def flaky(n):
        if n not in tried:
            tried.add(n)
            raise ValueError("again")
        return n

    @ledger.llm
    async def ask(question):
        await asyncio.sleep(0)
        return question * 2

    @ledger.agent
    async def agent(topic):
        return await ask(topic)

    @ledger.task(timeout_s=0.05)
    async def slow():
        await asyncio.sleep(60)

    @ledger.workflow(version="1", steps=["flaky"], tags=["t"])
    def sync_work(n):
        return flaky(n), search("q")

    @ledger.workflow
    async def async_work(topic):
        with suppress(TaskTimeout):
            await slow()
        return await asyncio.gather(agent(topic), agent(topic + "!"))

    return sync_work, async_work


def use_handles(ledger):
    with ledger.start_workflow("handles", subject="user", metadata={"a": 1}, input={"x": float("nan")}) as run:
        run.progress(state_data={"n": 1}, current_step="one", total_steps=2)
        run.set_tools([{"name": "search"}])
        with run.task("load", input="x") as task:
            with task.tool("inner") as inner:
                inner.output = object()
            with task.llm("call", model="gpt-4o") as call:
                call.usage = Usage(input_tokens=10, output_tokens=5)
            task.feedback("good", score=1)
            task.output = "y" * 100_000
        run.message("user", "hi")
        run.message({"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, usage=Usage(output_tokens=3))
        run.event("cache.hit", {"key": 1})
        run.feedback("helpful", label="yes", comment="fine")
        run.output = {"answer": 42}
    return run


def use_conversations(ledger):
    talk = ledger.conversation("talk", subject="user")
    first = talk.add("user", "one")
    talk.add("assistant", "two", usage=Usage(input_tokens=1, model="gpt-4o"))
    talk.edit(first, "one, again")
    talk.regenerate(2).add("assistant", "two, again")
    assert talk.branches()
    assert talk.messages()
    assert talk.page(limit=1)
    talk.usage()
    assert talk.pop()
    assert talk.clear()


def use_the_callers_transaction(ledger):
    with psycopg.connect(url) as mine, ledger.joining(mine), ledger.start_workflow("joined") as run:
        run.event("app.joined")
    with psycopg.connect(url) as mine:
        try:
            with ledger.joining(mine), ledger.start_workflow("rolled-back", workflow_id="gone"):
                raise KeyError("x")
        except KeyError:
            mine.rollback()


def refuse_and_cancel(ledger):
    for write in (
        lambda: ledger.start_workflow(""),
        lambda: ledger.event("workflow.failed", entity_type="a", entity_id="b"),
    ):
        try:
            write()
        except InvalidInput:
            continue
        raise AssertionError("taken")
    try:
        with ledger.start_workflow("cancelled", workflow_id="c") as run:
            ledger.cancel("c", reason="enough")
            with run.task("never"):
                raise AssertionError("begun")
    except WorkflowCancelled:
        pass
    with ledger.start_workflow("done", workflow_id="d"):
        pass
    try:
        with ledger.start_workflow("done", workflow_id="d"):
            raise AssertionError("begun")
    except Conflict:
        pass


def read_everything(ledger, run):
    for page in (
        ledger.workflows(),
        ledger.find(status="completed", limit=2),
        ledger.search("handles"),
        ledger.failed(),
        ledger.failed_executions(),
        ledger.slowest(),
        ledger.slowest_executions(),
        ledger.executions(run.workflow_id),
        ledger.timeline(run.workflow_id),
        ledger.messages("talk"),
        ledger.feedback_of(run.workflow_id),
        ledger.statistics(by_name=True, by_day=True),
        ledger.execution_statistics(by_name=True),
    ):
        list(page)
    ledger.running()
    ledger.stuck(quiet_s=1)
    ledger.search_failures("again")
    assert ledger.usage(run.workflow_id).input_tokens == 10
    ledger.tally  # noqa: B018


async def use_coroutines(ledger, async_work):
    assert await async_work("a") == ["aa", "a!a!"]
    async with ledger.start_workflow("async") as run:
        async with run.task("t") as task:
            task.output = 1
    cancelled = asyncio.create_task(async_work("b"))
    await asyncio.sleep(0.02)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)


def use(ledger):
    sync_work, async_work = define(ledger)
    threads = [threading.Thread(target=sync_work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sync_work.options(workflow_id="again", subject="s")(2)
    assert sync_work.options(workflow_id="again")(2)[0] == 2
    sync_work.enqueue(5)
    async_work.enqueue("c")
    assert WorkerLoop(ledger).run_until_idle() == 2
    asyncio.run(use_coroutines(ledger, async_work))
    run = use_handles(ledger)
    use_conversations(ledger)
    use_the_callers_transaction(ledger)
    refuse_and_cancel(ledger)
    ledger.flush()
    read_everything(ledger, run)


with workledger.open(url, home=home) as ledger:
    use(ledger)
with workledger.open(url, home=home, project="buffered", durability="buffered") as ledger:
    handles = use_handles(ledger)
    ledger.flush()
    assert ledger.get_workflow(handles.workflow_id).status == "completed"
left = workledger.open(url, home=home)  # closed by the exit hook
left.event("app.left", entity_type="app", entity_id="a")
print("done")
