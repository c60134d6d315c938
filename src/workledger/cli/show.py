"""`workledger show`: one workflow, or one execution, whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from workledger.cli._help import examples
from workledger.cli._lineage import TrainingLines, positions_text, training_lines
from workledger.cli._output import note, print_json, print_lines, print_table, styled, to_plain
from workledger.cli._session import session_of
from workledger.cli._text import clip, count, duration, first_line, printable, when
from workledger.errors import NotFound, WorkledgerError

if TYPE_CHECKING:
    from workledger.model.records import Event, Feedback, Message, TaskExecution, Workflow
    from workledger.postgres.connection import Connection
    from workledger.settings import Settings

__all__ = ["add_to"]

_VALUE_CHARS: Final = 300
_MESSAGE_CHARS: Final = 110
_MESSAGES: Final = 40


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "workledger show tau-bench/airline/0/1",
            "workledger show 0198c0de-… --full",
            "workledger show 2026-11-22 --json | jq '.executions[] | select(.status == \"failed\")'",
        )
    )(show)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Whole:
    """One workflow and everything that belongs to it."""

    workflow: Workflow
    executions: list[TaskExecution]
    messages: list[Message]
    feedback: list[Feedback]
    events: list[Event]
    training: list[TrainingLines]
    archive: str | None = None


def show(
    context: typer.Context,
    entity_id: Annotated[str, typer.Argument(metavar="ID", help="The id of a workflow or of an execution.")],
    *,
    full: Annotated[bool, typer.Option("--full", help="Values and messages at full length.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document, everything at full length.")
    ] = False,
) -> None:
    """One workflow: how it stands, its executions as a tree, what was said, feedback, events, its training lines.

    With the id of an execution: that attempt with its input, output, error and traceback.
    """
    from workledger.operational import reads

    session = session_of(context)
    with session.connection() as connection:
        try:
            found = _gather(connection, session.settings, entity_id)
        except NotFound:
            execution = _execution(connection, entity_id)
            events = [event for event in _events(connection, execution.workflow_id) if event.entity_id == entity_id]
            workflow = reads.workflow(connection, execution.workflow_id)
            _show_execution(execution, workflow, events, full=full, as_json=as_json)
            return
    if as_json:
        print_json(_document(found))
    else:
        _print(found, full=full)


def _gather(connection: Connection, settings: Settings, workflow_id: str) -> _Whole:
    from workledger.operational import branches, reads

    try:
        workflow = reads.workflow(connection, workflow_id)
    except NotFound as error:
        if "archive" not in error.details:
            raise
        return _gather_archived(connection, settings, workflow_id)
    conversation_id = workflow.conversation_id
    events = _events(connection, workflow_id)
    executions = reads.executions_of(connection, workflow_id)
    return _Whole(
        workflow=workflow,
        executions=executions,
        messages=[] if conversation_id is None else branches.branch(connection, conversation_id),
        feedback=reads.feedback_of(connection, workflow_id),
        events=events,
        training=_lines(settings, events, executions),
    )


def _gather_archived(connection: Connection, settings: Settings, workflow_id: str) -> _Whole:
    from workledger.operational import archived

    found = archived.workflow(connection, workflow_id)
    events = _events(connection, workflow_id)
    return _Whole(
        workflow=found.workflow,
        executions=found.executions,
        messages=found.messages,
        feedback=found.feedback,
        events=events,
        training=_lines(settings, events, found.executions),
        archive=found.url,
    )


def _lines(settings: Settings, events: list[Event], executions: list[TaskExecution]) -> list[TrainingLines]:
    """Where the training lines are; a store that cannot be read is said, and left out."""
    from workledger.assembly import training_stores

    kinds = {execution.execution_id: execution.kind for execution in executions}
    found: list[TrainingLines] = []
    try:
        for store in training_stores(settings).chosen_shard_stores():
            found += training_lines(store, events, kinds=kinds)
    except WorkledgerError as error:
        note(f"training lines are left out: {error.message}")
    return found


def _execution(connection: Connection, entity_id: str) -> TaskExecution:
    from workledger.operational import reads

    try:
        return reads.execution(connection, entity_id)
    except NotFound:
        raise NotFound(
            f"no workflow and no execution has the id {entity_id!r}; `workledger ps` and `workledger failed` list some",
            entity_type="workflow",
            entity_id=entity_id,
        ) from None


def _events(connection: Connection, workflow_id: str) -> list[Event]:
    from workledger.log import reader

    return reader.of_workflow(connection, workflow_id)


# -- for programs -----------------------------------------------------------------------------------------------


def _document(found: _Whole) -> dict[str, Any]:
    return {
        "workflow": found.workflow,
        "executions": found.executions,
        "messages": found.messages,
        "feedback": found.feedback,
        "events": [_event(event) for event in found.events],
        "training": found.training,
        **({"archive": found.archive} if found.archive else {}),
    }


def _event(event: Event) -> dict[str, Any]:
    fields = {name: getattr(event, name) for name in event.__struct_fields__ if name != "payload_json"}
    return {**fields, "payload": event.payload}


# -- for people -------------------------------------------------------------------------------------------------


def _print(found: _Whole, *, full: bool) -> None:
    _header(found.workflow, full=full)
    if found.archive is not None:
        _fields(archived_in=found.archive)
    if found.executions:
        _title(count(len(found.executions), "execution"))
        print_table(("EXECUTION", "KIND", "STATUS", "TOOK#", "ID", "ERROR"), _tree(found.executions))
    if found.messages:
        _conversation(found, full=full)
    if found.feedback:
        _title("feedback")
        columns = ("NAME", "SCORE#", "LABEL", "COMMENT", "SOURCE")
        print_table(columns, [(f.name, f.score, f.label, f.comment, f.source) for f in found.feedback])
    _event_summary(found.events)
    _training(found.training)


def _header(workflow: Workflow, *, full: bool) -> None:
    print_lines(styled(f"workflow {workflow.workflow_id}", "bold"))
    kind = f" ({workflow.workflow_type})" if workflow.workflow_type else ""
    version = f", version {workflow.definition_version}" if workflow.definition_version else ""
    steps = f"{workflow.completed_steps} of {workflow.total_steps} done" if workflow.total_steps else None
    _fields(
        name=f"{workflow.name or '-'}{kind}{version}",
        status=workflow.status,
        attempt=workflow.attempt if workflow.attempt > 1 else None,
        started=when(workflow.started_at or workflow.created_at),
        ended=when(workflow.completed_at),
        took=duration(workflow.execution_time_ms),
        step=workflow.current_step,
        steps=steps,
        asked_to_stop=when(workflow.cancel_requested_at),
        subject=workflow.subject,
        parent=workflow.parent_workflow_id,
        worker=workflow.worker_id,
        tags=", ".join(workflow.tags),
        input=_value(workflow.input_data, full=full),
        output=_value(workflow.output_data, full=full),
        metadata=_value(workflow.metadata or None, full=full),
        state=_value(workflow.state_data or None, full=full),
    )
    _error(workflow)


def _fields(**fields: object) -> None:
    for name, value in fields.items():
        if value not in {None, ""}:
            label, text = styled(f"  {name.replace('_', ' '):<13} ", "dim"), styled(value)
            print_lines(label + text)


def _error(record: Workflow | TaskExecution) -> None:
    if record.error is None and record.error_type is None:
        return
    style = "red" if record.status == "failed" else "yellow"
    print_lines(styled(f"  {record.error_type or 'reason'}: {record.error or ''}".rstrip(), style))
    for line in printable(record.error_traceback or "").splitlines():
        print_lines(styled(f"    {line}", "dim"))


def _title(text: str) -> None:
    print_lines("", styled(text, "bold"))


def _tree(executions: list[TaskExecution]) -> list[list[Any]]:
    known = {execution.execution_id for execution in executions}
    below: dict[str | None, list[TaskExecution]] = {}
    for execution in executions:
        parent = execution.parent_execution_id
        below.setdefault(parent if parent in known else None, []).append(execution)
    rows: list[list[Any]] = []
    waiting = [(execution, 0) for execution in reversed(below.get(None, []))]
    while waiting:
        execution, depth = waiting.pop()
        rows.append(_tree_row(execution, depth))
        waiting += [(child, depth + 1) for child in reversed(below.get(execution.execution_id, []))]
    return rows


def _tree_row(execution: TaskExecution, depth: int) -> list[Any]:
    attempt = f" (attempt {execution.retry_count + 1})" if execution.retry_count else ""
    error = ": ".join(part for part in (execution.error_type, first_line(execution.error or "")) if part)
    return [
        f"{'  ' * depth}{'└ ' if depth else ''}{execution.task_name or ''}{attempt}",
        execution.kind,
        styled(execution.status),
        duration(execution.execution_time_ms),
        styled(execution.execution_id, "dim"),
        styled(clip(error, _MESSAGE_CHARS), "red"),
    ]


def _conversation(found: _Whole, *, full: bool) -> None:
    roles = Counter(message.role for message in found.messages)
    parts = ", ".join(f"{number} {role}" for role, number in roles.items())
    _title(
        f"conversation {found.workflow.conversation_id}: {count(len(found.messages), 'message')} ({printable(parts)})"
    )
    shown = found.messages if full else found.messages[:_MESSAGES]
    for message in shown:
        lines = [line for line in _said(message).splitlines() if line.strip()] or [""]
        label = styled(f"  {message.seq:>4} {message.role:<10} ", "cyan")
        print_lines(label + styled(lines[0] if full else clip(lines[0], _MESSAGE_CHARS)))
        if full:
            print_lines(*(f"{'':<18}{line}" for line in lines[1:]))
    if len(shown) < len(found.messages):
        print_lines(f"  … {len(found.messages) - len(shown)} more; --full shows them")


def _said(message: Message) -> str:
    content = message.body.get("content")
    said = content if isinstance(content, str) else "" if content is None else _json(content)
    calls = message.body.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None  # pyright: ignore[reportUnknownMemberType]
        if isinstance(function, dict):
            said += f"\n→ {function.get('name')}({function.get('arguments')})"  # pyright: ignore[reportUnknownMemberType]
    return printable(said.strip())


def _event_summary(events: list[Event]) -> None:
    positions = [event.position for event in events if event.position is not None]
    span = f", positions {min(positions)} to {max(positions)}" if positions else ""
    waiting = len(events) - len(positions)
    _title(count(len(events), "event") + span + (f" ({waiting} not sequenced yet)" if waiting else ""))
    types = Counter(event.event_type for event in events)
    print_lines("  " + ", ".join(f"{number} {printable(name)}" for name, number in types.items()))


def _training(lines: list[TrainingLines]) -> None:
    if lines:
        _title("training lines, by the position of the event that made them")
        rows = [(one.records, file, clip(positions_text(one.positions), 60)) for one in lines for file in one.files]
        stores = dict.fromkeys(one.store for one in lines)
        if len(stores) > 1:
            named = [f"{one.store}/{file}" for one in lines for file in one.files]
            rows = [(records, file, spans) for (records, _, spans), file in zip(rows, named, strict=True)]
        print_table(("RECORDS", "FILE", "POSITIONS"), rows)


def _value(value: object, *, full: bool) -> str | None:
    if value is None:
        return None
    text = _json(value)
    return text if full else clip(text, _VALUE_CHARS)


def _json(value: object) -> str:
    import json

    return json.dumps(to_plain(value), ensure_ascii=False)


def _show_execution(
    execution: TaskExecution, workflow: Workflow, events: list[Event], *, full: bool, as_json: bool
) -> None:
    if as_json:
        print_json({"execution": execution, "events": [_event(event) for event in events]})
        return
    print_lines(styled(f"execution {execution.execution_id}", "bold"))
    _fields(
        name=f"{execution.task_name} ({execution.kind})",
        status=execution.status,
        attempt=execution.retry_count + 1,
        workflow=f"{workflow.workflow_id} ({workflow.name}, {workflow.status})",
        below=execution.parent_execution_id,
        started=when(execution.started_at),
        ended=when(execution.completed_at),
        took=duration(execution.execution_time_ms),
        worker=execution.worker_id,
        model=execution.model,
        input_tokens=execution.input_tokens,
        output_tokens=execution.output_tokens,
        cost_usd=execution.cost_usd,
        input=_value(execution.input_data, full=full),
        output=_value(execution.output_data, full=full),
        metadata=_value(execution.metadata or None, full=full),
    )
    _error(execution)
    _event_summary(events)
