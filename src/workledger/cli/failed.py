"""`workledger failed`: what failed, newest first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workledger.cli._help import examples
from workledger.cli._output import print_json, print_lines, print_table, styled
from workledger.cli._session import session_of
from workledger.cli._text import age, clip, count, first_line, parse_since

if TYPE_CHECKING:
    from workledger.model.records import TaskExecution, Workflow

__all__ = ["add_to"]

_COLUMNS = ("FAILED", "WHAT", "NAME", "ID", "ERROR")
_ERROR_CHARS = 120


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "workledger failed --since 1h",
            "workledger failed --json | jq -r '.executions[] | [.task_name, .error_type] | @tsv' | sort | uniq -c",
        )
    )(failed)


def failed(
    context: typer.Context,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only what failed since: 90s, 15m, 1h, 7d ago, or an ISO time.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many workflows, and as many executions.")] = 50,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Failed workflows and executions, newest first."""
    from workledger.operational import reads

    now = datetime.now(UTC)
    after = None if since is None else parse_since(since, now=now)
    with session_of(context).connection() as connection:
        workflows = reads.failed_workflows(connection, since=after, limit=limit)
        executions = reads.failed_executions(connection, since=after, limit=limit)
    if as_json:
        print_json(
            {"workflows": [_of_workflow(w) for w in workflows], "executions": [_of_execution(x) for x in executions]}
        )
    elif not workflows and not executions:
        print_lines("Nothing has failed." if since is None else f"Nothing has failed since {since}.")
    else:
        print_table(_COLUMNS, [_row(record, now) for record in _newest_first(workflows, executions)])
        print_lines(
            f"{count(len(workflows), 'workflow')} and {count(len(executions), 'execution')}. "
            "`workledger show ID` has the traceback."
        )


def _newest_first(workflows: list[Workflow], executions: list[TaskExecution]) -> list[Workflow | TaskExecution]:
    return sorted([*workflows, *executions], key=lambda record: record.completed_at or record.created_at, reverse=True)


def _row(record: Workflow | TaskExecution, now: datetime) -> list[Any]:
    error = ": ".join(part for part in (record.error_type, first_line(record.error or "")) if part)
    seen = [f"{age(record.completed_at, now=now)} ago", *_names(record)]
    return [*seen, styled(clip(error, _ERROR_CHARS), "red")]


def _names(record: Workflow | TaskExecution) -> list[Any]:
    execution_id = getattr(record, "execution_id", None)
    if execution_id is None:
        return [styled("workflow", "bold"), getattr(record, "name", None), styled(record.workflow_id, "bold")]
    retry = getattr(record, "retry_count", 0)
    attempt = f" (attempt {retry + 1})" if retry else ""
    return [getattr(record, "kind", "task"), f"{getattr(record, 'task_name', None) or ''}{attempt}", execution_id]


def _of_workflow(workflow: Workflow) -> dict[str, Any]:
    return {
        "workflow_id": workflow.workflow_id,
        "name": workflow.name,
        "workflow_type": workflow.workflow_type,
        "current_step": workflow.current_step,
        "attempt": workflow.attempt,
        "started_at": workflow.started_at,
        "completed_at": workflow.completed_at,
        "execution_time_ms": workflow.execution_time_ms,
        "error_type": workflow.error_type,
        "error": workflow.error,
    }


def _of_execution(execution: TaskExecution) -> dict[str, Any]:
    return {
        "execution_id": execution.execution_id,
        "workflow_id": execution.workflow_id,
        "task_name": execution.task_name,
        "kind": execution.kind,
        "retry_count": execution.retry_count,
        "started_at": execution.started_at,
        "completed_at": execution.completed_at,
        "execution_time_ms": execution.execution_time_ms,
        "error_type": execution.error_type,
        "error": execution.error,
    }
