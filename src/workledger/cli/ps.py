"""`workledger ps`: what is running now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workledger.cli._help import examples
from workledger.cli._output import print_json, print_lines, print_table, styled
from workledger.cli._session import session_of
from workledger.cli._text import age

if TYPE_CHECKING:
    from workledger.model.records import TaskExecution, Worker, Workflow

__all__ = ["add_to"]

_COLUMNS = ("WORKFLOW / EXECUTION", "NAME", "STEP", "AGE#", "WORKER")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "workledger ps", "workledger ps --json | jq '.workflows[] | select(.age_s > 3600) | .workflow_id'"
        )
    )(ps)


def ps(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="At most this many workflows, oldest first.")] = 100,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """What is running now, oldest first: workflows, and below each the executions at work in it.

    Work of a process that has stopped sending heartbeats is not listed: it is about to be recorded as failed.
    """
    from workledger.operational import reads

    with session_of(context).connection() as connection:
        workflows = reads.running_workflows(connection, limit=limit)
        executions = reads.running_executions(connection, limit=limit * 10)
        workers = {worker.worker_id: worker for worker in reads.workers(connection, limit=limit * 10)}
    now = datetime.now(UTC)
    if as_json:
        print_json(_document(workflows, executions, workers, now))
    elif workflows or executions:
        print_table(_COLUMNS, _rows(workflows, executions, workers, now))
    else:
        print_lines("Nothing is running.")


def _rows(
    workflows: list[Workflow], executions: list[TaskExecution], workers: dict[str, Worker], now: datetime
) -> list[list[Any]]:
    rows: list[list[Any]] = []
    below: dict[str, list[TaskExecution]] = {}
    for execution in executions:
        below.setdefault(execution.workflow_id, []).append(execution)
    for workflow in workflows:
        step = workflow.current_step or ""
        if workflow.total_steps:
            step += f" ({workflow.completed_steps} of {workflow.total_steps} done)"
        if workflow.cancel_requested_at:
            step += " (asked to stop)"
        started = workflow.started_at
        rows.append(
            [
                styled(workflow.workflow_id, "bold"),
                workflow.name,
                step.strip(),
                age(started, now=now),
                _place(workflow.worker_id, workers),
            ]
        )
        rows += [_execution_row(execution, workers, now) for execution in below.pop(workflow.workflow_id, [])]
    # What is left belongs to workflows beyond the limit.
    rows += [_execution_row(execution, workers, now) for group in below.values() for execution in group]
    return rows


def _execution_row(execution: TaskExecution, workers: dict[str, Worker], now: datetime) -> list[Any]:
    attempt = f", attempt {execution.retry_count + 1}" if execution.retry_count else ""
    return [
        f"└ {execution.execution_id}",
        execution.task_name,
        f"{execution.kind}{attempt}",
        age(execution.started_at, now=now),
        _place(execution.worker_id, workers),
    ]


def _place(worker_id: str | None, workers: dict[str, Worker]) -> str:
    if worker_id is None:
        return ""
    worker = workers.get(worker_id)
    return worker_id if worker is None else f"{worker.hostname}:{worker.pid}"


def _document(
    workflows: list[Workflow], executions: list[TaskExecution], workers: dict[str, Worker], now: datetime
) -> dict[str, Any]:
    def common(record: Workflow | TaskExecution) -> dict[str, Any]:
        worker = workers.get(record.worker_id or "")
        return {
            "started_at": record.started_at,
            "age_s": None if record.started_at is None else round((now - record.started_at).total_seconds(), 3),
            "worker_id": record.worker_id,
            "worker": None if worker is None else {"hostname": worker.hostname, "pid": worker.pid},
        }

    return {
        "workflows": [
            {
                "workflow_id": workflow.workflow_id,
                "name": workflow.name,
                "workflow_type": workflow.workflow_type,
                "current_step": workflow.current_step,
                "completed_steps": workflow.completed_steps,
                "total_steps": workflow.total_steps,
                "attempt": workflow.attempt,
                "cancel_requested_at": workflow.cancel_requested_at,
                **common(workflow),
            }
            for workflow in workflows
        ],
        "executions": [
            {
                "execution_id": execution.execution_id,
                "workflow_id": execution.workflow_id,
                "task_name": execution.task_name,
                "kind": execution.kind,
                "retry_count": execution.retry_count,
                "parent_execution_id": execution.parent_execution_id,
                **common(execution),
            }
            for execution in executions
        ],
    }
