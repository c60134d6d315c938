"""`workledger import` and `workledger export`: bringing runs in, taking training data out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from workledger.cli._exits import FAILED
from workledger.cli._help import examples
from workledger.cli._output import note, print_json, print_lines, progress
from workledger.cli._session import session_of
from workledger.cli._text import count

if TYPE_CHECKING:
    from workledger.flows.import_lines import ImportReport

__all__ = ["add_to"]

_NOUNS: Final = {
    "workflow.started": "workflow",
    "conversation.started": "conversation",
    "message.added": "message",
    "task.started": "tool execution",
    "feedback.recorded": "feedback row",
}
_REFUSALS_SHOWN: Final = 20


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    imports = typer.Typer(
        name="import", help="Bring finished runs from elsewhere into the ledger.", no_args_is_help=True
    )
    imports.command(
        "tau-bench",
        epilog=examples(
            "workledger import tau-bench gpt-4o.jsonl --name airline", "workledger show tau-bench/airline/0/1"
        ),
    )(import_tau_bench)
    app.add_typer(imports)


def import_tau_bench(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="One run a line: task_id, trial, reward, info, traj.")],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Part of every id. Default: the file's name without its ending.")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Import agent trajectories in the layout of τ-bench: each line becomes a finished workflow.

    A workflow has the messages of the run as one conversation, each tool call as a tool execution with its input and
    output, and the reward as feedback; its id is tau-bench/NAME/TASK/TRIAL. A run goes in whole or not at all.
    Importing again changes nothing, so whatever is interrupted can simply be run again. A malformed line is refused
    with its number, the rest goes in, and the exit code is 1.
    """
    from workledger.flows import import_tau_bench as flow

    began_s = time.monotonic()
    total = _count_lines(file)
    with (
        session_of(context).ledger() as ledger,
        ledger.pool.connection() as connection,
        progress(f"importing {file.name}", total=total, quiet=as_json) as tell,
    ):
        report = flow.import_tau_bench(
            file, connection=connection, recorder=ledger.recorder, clock=ledger.clock, name=name, on_line=tell
        )
    _report(report, took_s=time.monotonic() - began_s, as_json=as_json)


def _count_lines(file: Path) -> int | None:
    try:
        with file.open("rb") as lines:
            return sum(1 for _ in lines)
    except OSError:
        return None


def _report(report: ImportReport, *, took_s: float, as_json: bool) -> None:
    if as_json:
        print_json(_document(report, took_s))
    else:
        new = [count(report.recorded[event], noun) for event, noun in _NOUNS.items() if report.recorded.get(event)]
        print_lines(
            f"Imported {count(report.imported, 'run')} in {took_s:.1f} s"
            + (f": {', '.join(new)}." if new else ".")
            + (f" {count(report.already_there, 'run')} already there." if report.already_there else "")
        )
    if not report.refused:
        return
    for refusal in report.refused[:_REFUSALS_SHOWN]:
        note(f"refused: line {refusal.line}: {refusal.reason}")
    if len(report.refused) > _REFUSALS_SHOWN:
        note(f"refused: {len(report.refused) - _REFUSALS_SHOWN} more; --json lists all")
    note(f"error: {count(len(report.refused), 'line')} of {report.lines:,} refused; mend them and import again")
    raise typer.Exit(FAILED)


def _document(report: ImportReport, took_s: float) -> dict[str, Any]:
    return {
        "lines": report.lines,
        "imported": report.imported,
        "already_there": report.already_there,
        "refused": report.refused,
        "recorded": report.recorded,
        "took_s": round(took_s, 3),
    }
