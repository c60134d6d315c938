"""Agent trajectories in the layout of τ-bench, one JSON object a line, as workflows.

A line has `task_id`, `trial`, `reward`, `info` (with `task`: what the agent was asked, and for whom) and `traj` (the
messages in chat-completion form). It becomes one completed workflow with one conversation, one tool execution for
each tool call, and one feedback `reward`. Ids are made from the name of the import, the task, the trial and the
place in the trajectory: models use the same tool call id twice, in one run and across runs. The runs have no times
of their own, so they get those of the import, in the order of their messages.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from workledger.errors import InvalidInput
from workledger.flows.import_lines import ImportReport, Item, Refusal, import_items
from workledger.flows.record import Recorder
from workledger.model import change as changes
from workledger.model.change import Change
from workledger.model.clock import Clock
from workledger.model.ids import check_name
from workledger.model.payload import Packer
from workledger.model.status import Kind
from workledger.postgres.connection import Connection

__all__ = ["import_tau_bench", "read_lines", "workflow_of"]

WORKFLOW_NAME: Final = "tau-bench"
MAX_NAME_CHARS: Final = 100

_MICROSECOND = timedelta(microseconds=1)


class _Line(msgspec.Struct, frozen=True):
    """What a line must have; whatever else it has is kept in the workflow's metadata."""

    task_id: int | str
    reward: float
    traj: list[dict[str, Any]]
    trial: int | str = 0
    info: dict[str, Any] = {}


class _Function(msgspec.Struct, frozen=True):
    name: str
    arguments: Any = None


class _ToolCall(msgspec.Struct, frozen=True):
    function: _Function
    id: str | None = None


class _Call(msgspec.Struct, frozen=True):
    """A tool call that waits for its result."""

    call_id: str | None
    execution_id: str


def import_tau_bench(
    path: Path,
    *,
    connection: Connection,
    recorder: Recorder,
    clock: Clock,
    name: str | None = None,
    on_line: Callable[[int], None] | None = None,
) -> ImportReport:
    """Import a file; see `import_items` for what is promised. `name` (default: the file's) is part of every id."""
    name = check_name("name", path.stem if name is None else name, limit=MAX_NAME_CHARS)
    try:
        with path.open("rb") as lines:
            items = read_lines(lines, name=name, clock=clock)
            return import_items(items, connection=connection, recorder=recorder, on_line=on_line)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}", field="path", value=path, limit=None) from error


def read_lines(lines: Iterable[bytes], *, name: str, clock: Clock) -> Iterator[Item | Refusal]:
    """Each line as a workflow or as a refusal, in order; empty lines are passed over."""
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text:
            continue
        try:
            yield workflow_of(text, line=number, name=name, at=clock.now())
        except InvalidInput as error:
            yield Refusal(line=number, reason=error.message)


def workflow_of(text: bytes, *, line: int, name: str, at: datetime) -> Item:
    """One line as the changes of one workflow that began at `at`; raises `InvalidInput`."""
    document = _parse(text)
    try:
        record = msgspec.convert(document, _Line)
    except msgspec.ValidationError as error:
        raise _refused(f"not a τ-bench run: {error}") from error
    digest = hashlib.sha256(text).hexdigest()
    run = _Run(record, workflow_id=f"{WORKFLOW_NAME}/{name}/{record.task_id}/{record.trial}", at=at)
    return Item(
        line=line,
        workflow_id=run.workflow_id,
        digest=digest,
        changes=run.changes(extra=_unnamed(document), digest=digest),
    )


class _Run:
    """One trajectory on its way into changes; every change is a microsecond after the one before."""

    def __init__(self, record: _Line, *, workflow_id: str, at: datetime) -> None:
        self.workflow_id = workflow_id
        self._record = record
        self._at = at
        self._changes: list[Change] = []
        self._open: list[list[_Call]] = []

    def changes(self, *, extra: Mapping[str, Any], digest: str) -> list[Change]:
        """Everything that happened, in order."""
        if not self._record.traj:
            raise _refused("traj is empty; a run has at least one message")
        self._start(extra, digest)
        for index, message in enumerate(self._record.traj):
            try:
                self._message(index, message)
            except (InvalidInput, msgspec.ValidationError) as error:
                raise _refused(f"traj[{index}]: {error}") from error
        self._give_up_open_calls()
        self._finish()
        return self._changes

    def _start(self, extra: Mapping[str, Any], digest: str) -> None:
        info = dict(self._record.info)
        task = info.pop("task", None)
        subject = cast("dict[str, Any]", task).get("user_id") if isinstance(task, dict) else None
        subject = subject if isinstance(subject, str) and subject else None
        metadata = {
            "task_id": self._record.task_id,
            "trial": self._record.trial,
            "reward": self._record.reward,
            "source_digest": digest,
            "info": info,
            **({"extra": dict(extra)} if extra else {}),
        }
        common: dict[str, Any] = {"workflow_id": self.workflow_id, "conversation_id": self.workflow_id}
        self._add(
            changes.start_workflow,
            name=WORKFLOW_NAME,
            workflow_type="agent",
            input=task,
            metadata=metadata,
            subject=subject,
            **common,
        )
        self._add(changes.start_conversation, subject=subject, **common)

    def _message(self, index: int, message: Mapping[str, Any]) -> None:
        call = self._result_of(message)
        if call is not None:
            self._add(
                changes.complete_execution,
                execution_id=call.execution_id,
                workflow_id=self.workflow_id,
                output=message.get("content"),
            )
        self._add(
            changes.add_message,
            message_id=f"{self.workflow_id}/{index}",
            conversation_id=self.workflow_id,
            workflow_id=self.workflow_id,
            execution_id=call.execution_id if call else None,
            message=message,
        )
        if message.get("tool_calls"):
            self._open.append([self._call(index, n, call) for n, call in enumerate(message["tool_calls"])])

    def _call(self, index: int, n: int, call: object) -> _Call:
        asked = msgspec.convert(call, _ToolCall)
        execution_id = f"{self.workflow_id}/{index}/{n}"
        self._add(
            changes.start_execution,
            execution_id=execution_id,
            workflow_id=self.workflow_id,
            task_name=asked.function.name,
            kind=Kind.TOOL,
            input=_arguments(asked.function.arguments),
            metadata=None if asked.id is None else {"tool_call_id": asked.id},
        )
        return _Call(call_id=asked.id, execution_id=execution_id)

    def _result_of(self, message: Mapping[str, Any]) -> _Call | None:
        """The call that a tool message answers: of those that wait, the first with its id in the newest message."""
        if message.get("role") != "tool":
            return None
        wanted = message.get("tool_call_id")
        for calls in reversed(self._open):
            for call in calls:
                if call.call_id == wanted:
                    calls.remove(call)
                    return call
        return None

    def _give_up_open_calls(self) -> None:
        for call in (call for calls in self._open for call in calls):
            self._add(
                changes.cancel_execution,
                execution_id=call.execution_id,
                workflow_id=self.workflow_id,
                reason="the trajectory has no result for this call",
            )

    def _finish(self) -> None:
        self._add(
            changes.record_feedback,
            feedback_id=f"{self.workflow_id}/reward",
            name="reward",
            score=self._record.reward,
            source=WORKFLOW_NAME,
            workflow_id=self.workflow_id,
        )
        answers = [message.get("content") for message in self._record.traj if message.get("role") == "assistant"]
        self._add(changes.complete_workflow, workflow_id=self.workflow_id, output=answers[-1] if answers else None)

    def _add(self, make: Callable[..., Change], **fields: Any) -> None:
        self._changes.append(make(**fields, at=self._at, packer=Packer()))
        self._at += _MICROSECOND


def _parse(text: bytes) -> dict[str, Any]:
    document = _decode(text)
    if not isinstance(document, dict):
        raise _refused(f"not a JSON object but {_json_type(document)}; `jq -c '.[]'` makes lines of an array")
    return cast("dict[str, Any]", document)


def _decode(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = str(error)
    except RecursionError as error:
        raise _refused("nested too deeply") from error
    # Python's own writer emits lone surrogates and NaN, which the strict parser refuses and the ledger can keep.
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refused(f"not valid JSON: {reason}") from error


def _arguments(value: object) -> Any:
    """The arguments of a call as a value; text that is no JSON stays text."""
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value.encode())
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return value


def _unnamed(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in _Line.__struct_fields__}


def _json_type(value: object) -> str:
    if value is None or isinstance(value, bool):
        return f"the value {json.dumps(value)}"
    return "an array" if isinstance(value, list) else "a string" if isinstance(value, str) else "a number"


def _refused(reason: str) -> InvalidInput:
    return InvalidInput(reason, field="line", value=None, limit=None)
