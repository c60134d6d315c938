"""The handle of one attempt at one task."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from msgspec.structs import replace

from workledger.errors import WorkflowCancelled
from workledger.model import change as changes
from workledger.model.change import Change, Usage
from workledger.model.ids import new_id
from workledger.model.status import Kind
from workledger.sdk import calls
from workledger.sdk.context import Place

if TYPE_CHECKING:
    from workledger.sdk.run import WorkflowRun

__all__ = ["Execution"]


class Execution:
    """One attempt at one task, as a context manager: `with run.task("load", input=path) as task: task.output = …`.

    Entering records that it began; leaving records `output`, or the exception, which goes on unchanged. Works
    with `with` and `async with`. Inside, decorated functions and `task.tool(...)` nest below it.
    """

    def __init__(
        self,
        run: WorkflowRun,
        name: str,
        *,
        kind: Kind,
        input: object = None,  # noqa: A002  the word users know
        parent: Execution | None = None,
        retry_count: int = 0,
        step_key: str | None = None,
        input_digest: str | None = None,
        metadata: dict[str, Any] | None = None,
        model: str | None = None,
        strict: bool = True,
    ) -> None:
        self.run = run
        self.name = name
        self.kind = kind
        self.execution_id = new_id()
        self.parent = parent
        self.retry_count = retry_count
        self.output: object = None
        self.usage: Usage | None = None
        self._input = input
        self.step_key = step_key
        self._input_digest = input_digest
        self._metadata = metadata
        self._model = model
        self._strict = strict
        self._began_s = 0.0
        self._place = Place(run, self)

    def task(self, name: str, *, input: object = None, **options: Any) -> Execution:  # noqa: A002
        """A task below this one."""
        return self.run.execution(name, kind=Kind.TASK, input=input, parent=self, **options)

    def tool(self, name: str, *, input: object = None, **options: Any) -> Execution:  # noqa: A002
        """A tool call below this execution."""
        return self.run.execution(name, kind=Kind.TOOL, input=input, parent=self, **options)

    def llm(self, name: str, *, input: object = None, **options: Any) -> Execution:  # noqa: A002
        """A model call below this execution; set `usage` on it."""
        return self.run.execution(name, kind=Kind.LLM, input=input, parent=self, **options)

    def feedback(self, name: str, **judgement: Any) -> str:
        """Judge this execution; see `WorkflowRun.feedback`."""
        return self.run.feedback(name, execution_id=self.execution_id, **judgement)

    # -- with and async with ------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.run.ledger.record(self.begin())
        self._place.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._place.leave()
        self.run.ledger.record(self.end(error))

    async def __aenter__(self) -> Self:
        await self.run.ledger.record_async(self.begin())
        self._place.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._place.leave()
        # Shielded: a cancelled task is still recorded as cancelled.
        await asyncio.shield(self.run.ledger.record_async(self.end(error)))

    # -- the changes it makes -----------------------------------------------------------------------------------

    def begin(self) -> Change:
        """The change that says it began; starts the clock."""
        ledger = self.run.ledger
        self._began_s = ledger.clock.monotonic_s()
        return changes.start_execution(
            execution_id=self.execution_id,
            workflow_id=self.run.workflow_id,
            task_name=self.name,
            kind=self.kind,
            input=self._input,
            at=ledger.clock.now(),
            packer=ledger.packer(strict=self._strict),
            retry_count=self.retry_count,
            parent_execution_id=self.parent.execution_id if self.parent else None,
            step_key=self.step_key,
            input_digest=self._input_digest,
            worker_id=ledger.worker_id,
            model=self._model,
            metadata=self._metadata,
            attempt=self.run.attempt,
        )

    def end(self, error: BaseException | None) -> Change:
        """The change that says how it ended."""
        ledger = self.run.ledger
        common: dict[str, Any] = {
            "execution_id": self.execution_id,
            "workflow_id": self.run.workflow_id,
            "at": ledger.clock.now(),
            "packer": ledger.packer(strict=False),
            "execution_time_ms": (ledger.clock.monotonic_s() - self._began_s) * 1000,
        }
        if error is None:
            return changes.complete_execution(output=self.output, usage=self._reported(), **common)
        if isinstance(error, (asyncio.CancelledError, WorkflowCancelled)):
            return changes.cancel_execution(reason=str(error) or "cancelled", **common)
        return changes.fail_execution(failure=calls.failure_of(error), usage=self._reported(), **common)

    def _reported(self) -> Usage | None:
        """The usage, with the model that this execution began with when it names none itself."""
        if self.usage is None or self.usage.model is not None or self._model is None:
            return self.usage
        return replace(self.usage, model=self._model)
