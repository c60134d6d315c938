"""Changes for tests, with their times and ids made here."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from workledger.model import change as changes
from workledger.model.ids import new_id
from workledger.model.payload import Packer


def now() -> datetime:
    return datetime.now(UTC)


def make(kind: str, /, **fields):
    """A change of `model.change` with a time and a packer of its own: `make("start_workflow", name="w", …)`."""
    function = getattr(changes, kind)
    defaults = {"at": now(), "packer": Packer()}
    accepted = function.__kwdefaults__ or {}
    names = {*function.__code__.co_varnames[: function.__code__.co_argcount + function.__code__.co_kwonlyargcount]}
    return function(**{key: value for key, value in defaults.items() if key in names and key not in accepted} | fields)


start = partial(make, "start_workflow", name="w")
complete = partial(make, "complete_workflow")
task = partial(make, "start_execution", task_name="t")
done = partial(make, "complete_execution")


def whole_workflow(tasks: int = 2) -> list:
    """The changes of one workflow with a few tasks, in order."""
    workflow_id = new_id()
    result = [start(workflow_id=workflow_id, input={"n": tasks})]
    for _ in range(tasks):
        execution_id = new_id()
        result += [
            task(workflow_id=workflow_id, execution_id=execution_id, input=[1]),
            done(workflow_id=workflow_id, execution_id=execution_id, output={"ok": True}, execution_time_ms=1.0),
        ]
    return [*result, complete(workflow_id=workflow_id, output="end")]
