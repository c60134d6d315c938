"""The decorators: a function becomes a workflow, a task, a tool; `def` and `async def` alike."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

import tenacity

from workledger.errors import ConfigurationError, Conflict, NotFound, TaskTimeout, WorkledgerError
from workledger.model import change as changes
from workledger.model.status import Kind, Status
from workledger.sdk import calls
from workledger.sdk.execution import Execution
from workledger.sdk.resume import AlreadyCompleted
from workledger.sdk.run import WorkflowRun

if TYPE_CHECKING:
    from workledger.sdk.ledger import Ledger

__all__ = ["DecoratorsMixin", "TaskFunction", "WorkflowFunction"]

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """How a task is recorded and retried. Waits grow from `backoff_s` to `max_backoff_s`, with jitter."""

    name: str
    kind: Kind = Kind.TASK
    retries: int = 0
    backoff_s: float = 0.1
    max_backoff_s: float = 30.0
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    timeout_s: float | None = None


class TaskFunction:
    """A function whose calls are recorded when they happen inside a workflow; outside it is called as it is."""

    def __init__(self, ledger: Ledger, function: Callable[..., Any], options: TaskOptions) -> None:
        self._ledger = ledger
        self._function = function
        self._options = options
        self._is_async = inspect.iscoroutinefunction(function)
        update_wrapper(self, function)
        if self._is_async:
            _mark_coroutine_function(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function; inside a workflow, record the call."""
        place = self._ledger.place()
        if place is None:
            return self._function(*args, **kwargs)
        call = _Call(self._function, self._options, run=place.run, parent=place.execution, args=args, kwargs=kwargs)
        return call.run_async() if self._is_async else call.run()

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Bind to an instance, so that methods can be decorated."""
        if instance is None:
            return self
        return _Bound(self, instance)


class _Bound:
    """A task function bound to an instance."""

    def __init__(self, function: TaskFunction, instance: object) -> None:
        self._call = function
        self._instance = instance
        if inspect.iscoroutinefunction(function):
            _mark_coroutine_function(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(self._instance, *args, **kwargs)


class _Call:
    """One call of a task inside a workflow: its recorded answer, or its attempts."""

    def __init__(
        self,
        function: Callable[..., Any],
        options: TaskOptions,
        *,
        run: WorkflowRun,
        parent: Execution | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._function = function
        self._options = options
        self._run = run
        self._parent = parent
        self._args = args
        self._kwargs = kwargs
        self._input = calls.arguments(function, args, kwargs)
        self._digest = calls.digest(self._input)
        self._step_key = run.next_step_key(options.name, parent)
        self._earlier = run.recorded.take(self._step_key, input_digest=self._digest)

    def run(self) -> Any:
        """Call the function, or return what it returned before the interruption."""
        if self._earlier is not None and self._earlier.status == Status.COMPLETED:
            return self._earlier.output_data
        if not self._options.retries:
            return self._attempt(0)
        for attempt in tenacity.Retrying(**self._schedule()):
            with attempt:
                return self._attempt(attempt.retry_state.attempt_number - 1)
        raise AssertionError("unreachable")

    async def run_async(self) -> Any:
        """The same for a coroutine function."""
        if self._earlier is not None and self._earlier.status == Status.COMPLETED:
            return self._earlier.output_data
        if not self._options.retries:
            return await self._attempt_async(0)
        async for attempt in tenacity.AsyncRetrying(**self._schedule()):
            with attempt:
                return await self._attempt_async(attempt.retry_state.attempt_number - 1)
        raise AssertionError("unreachable")

    def _attempt(self, retry: int) -> Any:
        with self._execution(retry) as execution:
            if self._options.timeout_s is None:
                execution.output = self._function(*self._args, **self._kwargs)
            else:
                execution.output = self._within(self._options.timeout_s)
            return execution.output

    async def _attempt_async(self, retry: int) -> Any:
        async with self._execution(retry) as execution:
            try:
                async with asyncio.timeout(self._options.timeout_s):
                    execution.output = await self._function(*self._args, **self._kwargs)
            except TimeoutError as error:
                if self._options.timeout_s is None or isinstance(error, WorkledgerError):
                    raise
                raise self._too_slow() from error
            return execution.output

    def _within(self, timeout_s: float) -> Any:
        """Call in a thread and stop waiting after the time. Python cannot end a thread: the call itself goes on."""
        outcome: dict[str, Any] = {}

        def call() -> None:
            try:
                outcome["value"] = self._function(*self._args, **self._kwargs)
            except BaseException as error:  # noqa: BLE001  carried over to the caller's thread
                outcome["error"] = error

        thread = threading.Thread(target=call, name=f"workledger-{self._options.name}", daemon=True)
        thread.start()
        thread.join(timeout_s)
        if thread.is_alive():
            raise self._too_slow()
        if "error" in outcome:
            raise outcome["error"]
        return outcome["value"]

    def _too_slow(self) -> TaskTimeout:
        return TaskTimeout(
            f"task {self._options.name!r} ran longer than its timeout of {self._options.timeout_s} s",
            task_name=self._options.name,
            timeout_s=self._options.timeout_s,
        )

    def _execution(self, retry: int) -> Execution:
        before = 0 if self._earlier is None else self._earlier.retry_count + 1
        return Execution(
            self._run,
            self._options.name,
            kind=self._options.kind,
            input=self._input,
            parent=self._parent,
            retry_count=before + retry,
            step_key=self._step_key,
            input_digest=self._digest,
            strict=False,
        )

    def _schedule(self) -> dict[str, Any]:
        return {
            "stop": tenacity.stop_after_attempt(self._options.retries + 1),
            "wait": tenacity.wait_exponential_jitter(
                multiplier=self._options.backoff_s, max=self._options.max_backoff_s, jitter=self._options.backoff_s
            ),
            "retry": tenacity.retry_if_exception(self._is_retriable),
            "reraise": True,
        }

    def _is_retriable(self, error: BaseException) -> bool:
        if isinstance(error, WorkledgerError):
            return isinstance(error, TaskTimeout)
        return isinstance(error, self._options.retry_on)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowOptions:
    """How a workflow is recorded."""

    name: str
    version: str | None = None
    workflow_type: str | None = None
    steps: tuple[str, ...] = ()
    workflow_id: str | None = None
    subject: str | None = None
    conversation_id: str | None = None
    claim: bool = False
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


class WorkflowFunction:
    """A function whose calls are recorded as workflows.

    `research.options(workflow_id="2026-11-22")(topic)` gives a call its id, subject, tags or metadata. With the id
    of an unfinished workflow the call resumes it; with that of a completed one it returns the recorded output.
    """

    def __init__(self, ledger: Ledger, function: Callable[..., Any], options: WorkflowOptions) -> None:
        self._ledger = ledger
        self._function = function
        self._options = options
        self._is_async = inspect.iscoroutinefunction(function)
        self._registered = False
        update_wrapper(self, function)
        if self._is_async:
            _mark_coroutine_function(self)

    @property
    def name(self) -> str:
        """The name of the workflow definition."""
        return self._options.name

    @property
    def is_async(self) -> bool:
        """Whether a call returns a coroutine."""
        return self._is_async

    def options(self, **options: Any) -> WorkflowFunction:
        """The same workflow with other options for the calls made through it."""
        if "tags" in options:
            options["tags"] = tuple(options["tags"])
        other = WorkflowFunction(self._ledger, self._function, replace(self._options, **options))
        other._registered = self._registered
        return other

    def enqueue(self, *args: Any, **kwargs: Any) -> str:
        """Record the workflow as pending, for a worker to run (`workledger worker`); returns its id."""
        self._register()
        run = self._run(args, kwargs, pending=True)
        self._ledger.record(run.begin(), wait=True)
        return run.workflow_id

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the workflow, resume it, or return what it returned before."""
        return self._call_async(args, kwargs) if self._is_async else self._call(args, kwargs)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._register()
        run = self._run(args, kwargs)
        try:
            with run:
                run.output = self._function(*args, **kwargs)
                run.recorded.check_complete()
        except AlreadyCompleted as done:
            return self._recorded_output(done, calls.arguments(self._function, args, kwargs))
        return run.output

    async def _call_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        await asyncio.to_thread(self._register)
        run = self._run(args, kwargs)
        try:
            async with run:
                run.output = await self._function(*args, **kwargs)
                run.recorded.check_complete()
        except AlreadyCompleted as done:
            return self._recorded_output(done, calls.arguments(self._function, args, kwargs))
        return run.output

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, pending: bool = False) -> WorkflowRun:
        options = self._options
        return self._ledger.start_workflow(
            options.name,
            workflow_id=options.workflow_id,
            workflow_type=options.workflow_type,
            input=calls.arguments(self._function, args, kwargs),
            metadata=options.metadata,
            tags=options.tags,
            subject=options.subject,
            conversation_id=options.conversation_id,
            definition_version=options.version,
            total_steps=len(options.steps),
            pending=pending,
            claim=options.claim,
            strict=False,
        )

    def _recorded_output(self, done: AlreadyCompleted, given: dict[str, Any]) -> Any:
        workflow = done.workflow
        if workflow.workflow_id != self._options.workflow_id:
            raise done  # raised inside the workflow, about another one
        if calls.digest(workflow.input_data) != calls.digest(given):
            raise Conflict(
                f"workflow {workflow.workflow_id!r} is completed already, "
                "with other arguments than it is called with now",
                entity_id=workflow.workflow_id,
            )
        return workflow.output_data

    def _register(self) -> None:
        if self._registered or self._options.version is None:
            return
        change = changes.register_definition(
            name=self._options.name,
            version=self._options.version,
            steps=self._options.steps,
            source_digest=calls.source_digest(self._function),
            at=self._ledger.clock.now(),
        )
        try:
            self._ledger.record(change)
        except Conflict as error:
            logger.warning("definition.changed %s", error)
        self._registered = True


class DecoratorsMixin:
    """The decorators of a ledger, and the workflow functions registered with it."""

    def __init__(self) -> None:
        self._definitions: dict[str, WorkflowFunction] = {}

    @overload
    def workflow(self, function: Callable[P, R], /) -> Callable[P, R]: ...
    @overload
    def workflow(
        self,
        /,
        *,
        name: str | None = None,
        version: str | None = None,
        workflow_type: str | None = None,
        steps: Sequence[str] = (),
        tags: Sequence[str] = (),
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
    def workflow(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        version: str | None = None,
        workflow_type: str | None = None,
        steps: Sequence[str] = (),
        tags: Sequence[str] = (),
    ) -> Any:
        """Make every call of a function a recorded workflow.

        `version` registers it as a definition; `steps` are the names of its tasks, when they are known.
        """

        def decorate(function: Callable[..., Any]) -> WorkflowFunction:
            options = WorkflowOptions(
                name=name or function.__name__,
                version=version,
                workflow_type=workflow_type,
                steps=tuple(steps),
                tags=tuple(tags),
            )
            definition = WorkflowFunction(cast("Ledger", self), function, options)
            self._definitions[options.name] = definition
            return definition

        return decorate if function is None else decorate(function)

    @overload
    def task(self, function: Callable[P, R], /) -> Callable[P, R]: ...
    @overload
    def task(
        self,
        /,
        *,
        name: str | None = None,
        retries: int = 0,
        backoff_s: float = 0.1,
        max_backoff_s: float = 30.0,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = Exception,
        timeout_s: float | None = None,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
    def task(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Record every call of a function inside a workflow as a task, one execution per attempt."""
        return self._task_like(Kind.TASK, function, options)

    @overload
    def tool(self, function: Callable[P, R], /) -> Callable[P, R]: ...
    @overload
    def tool(
        self,
        /,
        *,
        name: str | None = None,
        retries: int = 0,
        backoff_s: float = 0.1,
        max_backoff_s: float = 30.0,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = Exception,
        timeout_s: float | None = None,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
    def tool(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Record every call of a function inside a workflow as a tool execution."""
        return self._task_like(Kind.TOOL, function, options)

    def llm(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Record every call of a function inside a workflow as a model call."""
        return self._task_like(Kind.LLM, function, options)

    def agent(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Record every call of a function inside a workflow as an agent's turn."""
        return self._task_like(Kind.AGENT, function, options)

    def _task_like(self, kind: Kind, function: Callable[..., Any] | None, options: dict[str, Any]) -> Any:
        name = options.pop("name", None)
        retry_on = options.pop("retry_on", Exception)
        given: dict[str, Any] = {**options, "retry_on": retry_on if isinstance(retry_on, tuple) else (retry_on,)}

        def decorate(function: Callable[..., Any]) -> TaskFunction:
            named = TaskOptions(name=name or function.__name__, kind=kind, **given)
            return TaskFunction(cast("Ledger", self), function, named)

        return decorate if function is None else decorate(function)

    def definition_names(self) -> list[str]:
        """The names of the workflow functions registered with this ledger."""
        return sorted(self._definitions)

    def definition(self, name: str) -> WorkflowFunction:
        """The workflow function registered under a name; raises `NotFound`."""
        if name not in self._definitions:
            known = ", ".join(sorted(self._definitions)) or "none"
            raise NotFound(
                f"no workflow function {name!r} in this process (registered: {known}); import the module that has it",
                entity_type="definition",
                entity_id=name,
            )
        return self._definitions[name]

    def resume(self, workflow_id: str) -> Any:
        """Continue an unfinished workflow with its recorded arguments; returns what the workflow returns.

        Raises `DatabaseUnavailable` when it cannot be claimed now: it is never run on the strength of a spool.
        """
        workflow = cast("Ledger", self).get_workflow(workflow_id)
        if workflow.name is None:
            raise ConfigurationError(f"workflow {workflow_id!r} has no name to find its function by")
        definition = self.definition(workflow.name).options(workflow_id=workflow_id, claim=True)
        return definition(**(workflow.input_data or {}))


def _mark_coroutine_function(wrapper: Any) -> None:
    """Make `inspect.iscoroutinefunction` (and what relies on it) see an async callable."""
    mark = getattr(inspect, "markcoroutinefunction", None)  # Python 3.12 and newer
    if mark is not None:
        mark(wrapper)
    else:
        wrapper._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # noqa: SLF001
