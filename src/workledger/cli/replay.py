"""`workledger replay` and `workledger as-of`: how things stood at a position of the log, or at a time."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from workledger.cli._help import examples
from workledger.cli._output import print_json, print_lines, print_table, progress, styled, to_plain
from workledger.cli._session import Session, session_of
from workledger.cli._text import clip, count, duration, first_line, parse_since, when
from workledger.errors import InvalidInput

if TYPE_CHECKING:
    from workledger.flows.as_of import Past
    from workledger.model.records import Message, TaskExecution, Workflow
    from workledger.postgres.connection import Connection

__all__ = ["add_to"]

_VALUE_CHARS: Final = 160


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog=examples(
            "workledger replay 2026-11-22 --at 4711",
            "workledger replay 2026-11-22 --at 2026-11-22T08:30Z --json",
            "workledger replay 2026-11-22 --at 15m",
        )
    )(replay)
    app.command("as-of", epilog=examples("workledger as-of 4711", "workledger as-of 2026-11-22T08:30Z --json"))(as_of)


_AT: Final = "A position of the log, a time with its zone, or an age such as 15m."


def replay(
    context: typer.Context,
    workflow_id: Annotated[str, typer.Argument(metavar="WORKFLOW_ID", help="The workflow to look at.")],
    at: Annotated[str | None, typer.Option(metavar="POSITION|TIME", help=f"{_AT} Default: the head.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """One workflow as it stood then: its state, its executions, what had been said; replayed from its events."""
    session = session_of(context)
    with _past(session, at, workflow_id=workflow_id) as past:
        workflow = past.get_workflow(workflow_id)
        executions = past.executions(workflow_id)
        messages = [] if workflow.conversation_id is None else past.messages(workflow.conversation_id)
        document = {
            "position": past.position,
            "workflow": workflow,
            "executions": executions,
            "messages": messages,
            "feedback": past.feedback_of(workflow_id),
        }
    if as_json:
        print_json(document)
    else:
        _print_workflow(workflow, position=past.position)
        _print_executions(executions)
        _print_messages(messages)


def as_of(
    context: typer.Context,
    at: Annotated[str, typer.Argument(metavar="POSITION|TIME", help=_AT)],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most this many running and failed.")] = 20,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Everything as it stood then: how many of what, what was running, what had failed. Replays the log up to there."""
    with _past(session_of(context), at, quiet=as_json) as past:
        document: dict[str, Any] = {
            "position": past.position,
            "counts": past.count_by_status(),
            "running": past.running(limit=limit),
            "failed": past.failed(limit=limit),
        }
    if as_json:
        print_json(document)
        return
    print_lines(styled(f"As of position {past.position:,}", "bold"))
    for what, counts in document["counts"].items():
        told = ", ".join(f"{number:,} {status}" for status, number in sorted(counts.items())) or "none"
        print_lines(f"  {what + 's':<12} {told}")
    for status in ("running", "failed"):
        _print_list(status, document[status])


@contextmanager
def _past(session: Session, at: str | None, *, workflow_id: str | None = None, quiet: bool = False) -> Generator[Past]:
    from workledger.assembly import connect_to
    from workledger.flows.as_of import as_of as show
    from workledger.log.sequencer import sequence

    project = session.settings.project
    with session.connection() as connection:
        sequence(connection, schema=project)
        position = _position(connection, at)
    with (
        connect_to(session.settings, recording=True) as connection,
        progress("replaying", total=position, quiet=quiet or workflow_id is not None) as tell,
        show(connection, position, schema=project, workflow_id=workflow_id, on_progress=tell) as past,
    ):
        yield past


def _position(connection: Connection, at: str | None) -> int:
    from workledger.flows.as_of import position_at
    from workledger.log import reader

    if at is None:
        return reader.head(connection)[0]
    return int(at) if at.isdigit() else position_at(connection, _time(at))


def _time(at: str) -> datetime:
    try:
        return parse_since(at, now=datetime.now(UTC))
    except InvalidInput:
        raise InvalidInput(
            f"{at!r} is no moment; give a position of the log, a time with its zone (2026-01-31T08:00Z), or an age "
            "(90s, 15m, 1h, 7d)",
            field="at",
            value=at,
            limit=None,
        ) from None


# -- for people -------------------------------------------------------------------------------------------------


def _print_workflow(workflow: Workflow, *, position: int) -> None:
    print_lines(styled(f"workflow {workflow.workflow_id}, as of position {position:,}", "bold"))
    fields: dict[str, object] = {
        "name": workflow.name,
        "status": workflow.status,
        "step": workflow.current_step,
        "steps": f"{workflow.completed_steps} of {workflow.total_steps} done" if workflow.total_steps else None,
        "attempt": workflow.attempt if workflow.attempt > 1 else None,
        "started": when(workflow.started_at),
        "ended": when(workflow.completed_at),
        "input": _value(workflow.input_data),
        "output": _value(workflow.output_data),
        "state": _value(workflow.state_data or None),
        "error": workflow.error,
    }
    for name, value in fields.items():
        if value not in {None, ""}:
            print_lines(styled(f"  {name:<9} ", "dim") + styled(value))


def _print_executions(executions: list[TaskExecution]) -> None:
    if executions:
        rows = [
            [
                execution.execution_id,
                execution.task_name,
                execution.kind,
                styled(execution.status),
                duration(execution.execution_time_ms),
                _value(execution.output_data) or first_line(execution.error or ""),
            ]
            for execution in executions
        ]
        print_lines("", styled(count(len(executions), "execution"), "bold"))
        print_table(("EXECUTION", "TASK", "KIND", "STATUS", "TOOK#", "OUTPUT OR ERROR"), rows)


def _print_messages(messages: list[Message]) -> None:
    if messages:
        rows = [[message.seq, message.role, _value(message.body.get("content"))] for message in messages]
        print_lines("", styled(count(len(messages), "message"), "bold"))
        print_table(("#", "ROLE", "CONTENT"), rows)


def _print_list(status: str, workflows: Any) -> None:
    if workflows:
        rows = [
            [
                workflow.workflow_id,
                workflow.name,
                when(workflow.completed_at or workflow.started_at),
                clip(first_line(workflow.error or workflow.current_step or ""), _VALUE_CHARS),
            ]
            for workflow in workflows
        ]
        print_lines("", styled(status, "bold"))
        print_table(("WORKFLOW", "NAME", "SINCE", "STEP OR ERROR"), rows)


def _value(value: object) -> str | None:
    import json

    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(to_plain(value), ensure_ascii=False)
    return clip(text, _VALUE_CHARS)
