"""The place of the running code."""

import asyncio
import contextvars
import gc

import pytest

from workledger.sdk.context import Place, current


@pytest.fixture
def places():
    return [Place(run) for run in "abc"]


def test_a_place_that_is_left_in_another_context_changes_nothing_there(places):
    """A coroutine of a loop that was closed is ended by the garbage collector, wherever that runs."""
    contextvars.copy_context().run(places[0].enter)
    places[0].leave()
    assert current() is None
    places[1].enter()
    places[0].leave()
    assert current() is places[1]
    places[1].leave()


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_places_can_be_left_in_any_order(places, order):
    for place in places:
        place.enter()
    open_ = list(places)
    for n in order:
        places[n].leave()
        open_.remove(places[n])
        assert current() is (open_[-1] if open_ else None)


def test_overlapping_places_keep_no_chain_of_those_that_were_left(places):
    before = Place("first")
    before.enter()
    for n in range(1000):
        place = Place(n)
        place.enter()
        before.leave()
        assert place.outer is None
        before = place
    before.leave()


def test_a_generator_that_is_thrown_away_takes_nobody_back(ledger):
    """Its blocks are ended when it is collected, which may be at any later moment."""

    def steps(run):
        with run.task("outer"), run.task("inner"):
            yield

    with ledger.start_workflow("w") as run:
        thrown_away = steps(run)
        next(thrown_away)
    assert current() is None
    with ledger.start_workflow("v") as other:
        del thrown_away
        gc.collect()
        with other.task("step") as task:
            assert current().execution is task
        assert current().run is other
    assert current() is None


def test_a_task_that_outlives_its_step_keeps_its_place(ledger):
    async def scenario():
        async def later(gate):
            await gate.wait()
            with run.task("first"):
                pass
            return current().execution

        gate = asyncio.Event()
        async with ledger.start_workflow("w") as run:
            async with run.task("step") as step:
                spawned = asyncio.create_task(later(gate))
                await asyncio.sleep(0)
            gate.set()
            assert await spawned is step
            assert current().execution is None

    asyncio.run(scenario())
    parents = {one.task_name: one.parent_execution_id for one in ledger.executions(ledger.workflows()[0].workflow_id)}
    assert parents["first"] is not None
