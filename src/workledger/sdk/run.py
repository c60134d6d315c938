"""The handle of one workflow run."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from workledger.errors import Conflict, WorkflowCancelled
from workledger.model import change as changes
from workledger.model.change import Change, Usage
from workledger.model.ids import new_id
from workledger.model.records import Message
from workledger.model.status import Kind, Severity
from workledger.sdk import calls
from workledger.sdk.context import Place
from workledger.sdk.execution import Execution
from workledger.sdk.resume import Recorded

if TYPE_CHECKING:
    from workledger.sdk.ledger import Ledger

__all__ = ["WorkflowRun"]


class WorkflowRun:
    """One run of a named piece of work, as a context manager: `with ledger.start_workflow("import") as run: …`.

    Entering records that it started; leaving records `output`, or the exception, which goes on unchanged. Works
    with `with` and `async with`. Every method is safe from any thread.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        workflow_id: str,
        opening: Change,
        attempt: int = 1,
        conversation_id: str | None = None,
        own_id: bool = False,
        claims: bool = False,
        strict: bool = True,
    ) -> None:
        self.ledger = ledger
        self.workflow_id = workflow_id
        self.attempt = attempt
        self.output: object = None
        self.recorded = Recorded({})
        # An id of the caller's own may be taken: then the answer matters.
        self._own_id = own_id
        self._claims = claims
        self._opening = opening
        self._strict = strict
        self._conversation_id = conversation_id
        self._talking = False
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._began_s = 0.0
        self._place = Place(self)

    # -- executions ---------------------------------------------------------------------------------------------

    def task(self, name: str, *, input: object = None, **options: Any) -> Execution:  # noqa: A002
        """A task of this workflow: `with run.task("load", input=path) as task: task.output = load(path)`."""
        return self.execution(name, kind=Kind.TASK, input=input, **options)

    def tool(self, name: str, *, input: object = None, **options: Any) -> Execution:  # noqa: A002
        """A tool call of this workflow."""
        return self.execution(name, kind=Kind.TOOL, input=input, **options)

    def llm(self, name: str, *, input: object = None, **options: Any) -> Execution:  # noqa: A002
        """A model call of this workflow; set `usage` on it."""
        return self.execution(name, kind=Kind.LLM, input=input, **options)

    def agent(self, name: str, *, input: object = None, **options: Any) -> Execution:  # noqa: A002
        """An agent's turn in this workflow; its tool and model calls nest below it."""
        return self.execution(name, kind=Kind.AGENT, input=input, **options)

    def execution(self, name: str, *, kind: Kind, parent: Execution | None = None, **options: Any) -> Execution:
        """An attempt of any kind; nests below the one that is running here, unless `parent` is given."""
        if parent is None and (place := self.ledger.place()) is not None and place.run is self:
            parent = place.execution
        return Execution(self, name, kind=kind, parent=parent, **options)

    def next_step_key(self, name: str, parent: Execution | None) -> str:
        """The key of the next call of a task: its name and how often it was called before, below its parent."""
        path = f"{parent.step_key}/{name}" if parent is not None and parent.step_key else name
        with self._lock:
            self._calls[path] += 1
            count = self._calls[path]
        return calls.short_key(path if count == 1 else f"{path}#{count}")

    # -- what is said -------------------------------------------------------------------------------------------

    @property
    def conversation_id(self) -> str:
        """The conversation of this workflow; by default it has the workflow's own id."""
        return self._conversation_id or self.workflow_id

    def message(
        self,
        role: str | Mapping[str, Any],
        content: object = None,
        *,
        usage: Usage | None = None,
        message_id: str | None = None,
        **fields: Any,
    ) -> int:
        """Add a message to the workflow's conversation and return its `seq`.

        Takes a role and a content, with further fields (`tool_calls=…`), or a whole chat-completion object.
        """
        body = dict(role) if isinstance(role, Mapping) else {"role": role, "content": content, **fields}
        self._open_conversation()
        place = self.ledger.place()
        execution = place.execution if place is not None and place.run is self else None
        outcome = self.ledger.record(
            changes.add_message(
                message_id=message_id or new_id(),
                conversation_id=self.conversation_id,
                message=body,
                at=self.ledger.clock.now(),
                packer=self.ledger.packer(strict=self._strict),
                workflow_id=self.workflow_id,
                execution_id=execution.execution_id if execution else None,
                usage=usage,
            )
        )
        return outcome.seq or 0

    def messages(self) -> list[Message]:
        """The messages of the workflow's conversation, in order."""
        return self.ledger.messages(self.conversation_id)

    def _open_conversation(self) -> None:
        with self._lock:
            if self._talking:
                return
            self.ledger.ensure_conversation(self.conversation_id, workflow_id=self.workflow_id)
            if self._conversation_id is None:
                self.progress(conversation_id=self.workflow_id)
                self._conversation_id = self.workflow_id
            self._talking = True

    def event(
        self, event_type: str, payload: Mapping[str, Any] | None = None, *, severity: Severity | str = "info"
    ) -> str:
        """Record an event of the application's own on this workflow; returns its id."""
        change = changes.record_event(
            event_type=event_type,
            entity_type="workflow",
            entity_id=self.workflow_id,
            workflow_id=self.workflow_id,
            payload=payload,
            severity=Severity(severity),
            at=self.ledger.clock.now(),
            packer=self.ledger.packer(strict=self._strict),
        )
        self.ledger.record(change)
        return change.event_id

    def feedback(
        self,
        name: str,
        *,
        score: float | None = None,
        label: str | None = None,
        comment: str | None = None,
        source: str | None = None,
        execution_id: str | None = None,
        message_id: str | None = None,
    ) -> str:
        """Judge this workflow (or one of its executions or messages); returns the feedback's id."""
        return self.ledger.feedback(
            name,
            workflow_id=self.workflow_id,
            execution_id=execution_id,
            message_id=message_id,
            score=score,
            label=label,
            comment=comment,
            source=source,
        )

    def progress(
        self,
        *,
        state_data: Mapping[str, Any] | None = None,
        current_step: str | None = None,
        total_steps: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        conversation_id: str | None = None,
    ) -> None:
        """Say how far the workflow has come; `metadata` is merged into what is there."""
        self.ledger.record(
            changes.progress_workflow(
                workflow_id=self.workflow_id,
                at=self.ledger.clock.now(),
                packer=self.ledger.packer(strict=self._strict),
                attempt=self.attempt,
                state_data=state_data,
                current_step=current_step,
                total_steps=total_steps,
                metadata=metadata,
                conversation_id=conversation_id,
            )
        )

    def set_tools(self, tools: Sequence[Mapping[str, Any]]) -> None:
        """Record the tool definitions the model was given (JSON Schema); the chat export carries them."""
        self.progress(metadata={"tools": [dict(tool) for tool in tools]})

    # -- with and async with ------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            if self._claims:
                self.ledger.claim(self.begin())
            else:
                self.ledger.record(self.begin(), wait=self._own_id)
        except Conflict:
            self._take_over()
        self._place.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._place.leave()
        self.ledger.record(self.end(error))

    async def __aenter__(self) -> Self:
        try:
            if self._claims:
                await asyncio.to_thread(self.ledger.claim, self.begin())
            else:
                await self.ledger.record_async(self.begin(), wait=self._own_id)
        except Conflict:
            await asyncio.to_thread(self._take_over)
        self._place.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._place.leave()
        await asyncio.shield(self.ledger.record_async(self.end(error)))

    def _take_over(self) -> None:
        workflow, self.recorded = self.ledger.take_over(self.workflow_id)
        self.attempt = workflow.attempt + 1
        self._conversation_id = workflow.conversation_id or self._conversation_id

    # -- the changes it makes -----------------------------------------------------------------------------------

    def begin(self) -> Change:
        """The change that says it started, or was resumed; starts the clock."""
        self._began_s = self.ledger.clock.monotonic_s()
        return self._opening

    def end(self, error: BaseException | None) -> Change:
        """The change that says how it ended."""
        common: dict[str, Any] = {
            "workflow_id": self.workflow_id,
            "at": self.ledger.clock.now(),
            "packer": self.ledger.packer(strict=False),
            "execution_time_ms": (self.ledger.clock.monotonic_s() - self._began_s) * 1000,
            "attempt": self.attempt,
        }
        if error is None:
            return changes.complete_workflow(output=self.output, **common)
        if isinstance(error, (asyncio.CancelledError, WorkflowCancelled)):
            return changes.cancel_workflow(reason=str(error) or "cancelled", **common)
        return changes.fail_workflow(failure=calls.failure_of(error), **common)
