"""`workledger import` and `workledger export`: bringing runs in, taking training data out."""

from __future__ import annotations

import time
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from workledger.cli._exits import FAILED
from workledger.cli._help import examples
from workledger.cli._output import note, print_json, print_lines, progress
from workledger.cli._session import Session, session_of
from workledger.cli._text import count
from workledger.errors import InvalidInput, WorkledgerError

if TYPE_CHECKING:
    from workledger.flows.import_lines import ImportReport
    from workledger.postgres.connection import Connection

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
    app.command(
        epilog=examples(
            "workledger export --to out",
            "workledger export --format csv --to out",
            "workledger export --format chat --min-score 1 --to chat.jsonl",
        )
    )(export)


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

    session, began_s = session_of(context), time.monotonic()
    total = _count_lines(file)
    with (
        session.ledger() as ledger,
        ledger.pool.connection() as connection,
        progress(f"importing {file.name}", total=total, quiet=as_json) as tell,
    ):
        report = flow.import_tau_bench(
            file, connection=connection, recorder=ledger.recorder, clock=ledger.clock, name=name, on_line=tell
        )
        if report.imported:
            _seal(session, connection)
    _report(report, took_s=time.monotonic() - began_s, as_json=as_json)


def _seal(session: Session, connection: Connection) -> None:
    """Give what came in its positions and seal it, so that from now on an alteration of it shows.

    Where that cannot be done here (the key is on another machine, say), `workledger up` does it.
    """
    from workledger.assembly import seal_everything
    from workledger.flows.log_to_synapse import bring_up_to_date

    with suppress(WorkledgerError):
        bring_up_to_date(connection, schema=session.settings.project)
        seal_everything(session.settings, connection)


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


class ExportFormat(StrEnum):
    """What an export is made of."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    CHAT = "chat"


def export(
    context: typer.Context,
    *,
    file_format: Annotated[
        ExportFormat, typer.Option("--format", help="Records as they were landed, or conversations as chat examples.")
    ] = ExportFormat.JSONL,
    to: Annotated[Path, typer.Option(metavar="PATH", help="The folder to write to; for chat also a file.")] = Path(
        "export"
    ),
    min_score: Annotated[
        float | None, typer.Option(metavar="SCORE", help="With chat: only conversations of workflows scored so high.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="First let the training store catch up with the log.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write what was recorded into files for whoever trains.

    As jsonl, csv or parquet: one file for each record type (events, tasks, tool_executions, workflows), joined from
    the shards of the first training store that has this format, in a folder or a bucket, and compared with its
    manifest; jsonl and csv can also be made of Parquet. As chat: one example a line with `messages`, and `tools`
    where there are any, as chat fine-tuning takes them; conversations that cannot be an example are counted with the
    reason. A file takes its name when it is whole, and replaces what was there.
    """
    from workledger.assembly import wait_for_consumers

    session = session_of(context)
    if min_score is not None and file_format is not ExportFormat.CHAT:
        raise InvalidInput("--min-score goes with --format chat", field="min_score", value=min_score, limit="chat")
    if file_format is ExportFormat.CHAT:
        _export_chat(session, to, min_score=min_score, as_json=as_json)
        return
    if wait:
        with progress("landing", quiet=as_json) as tell:
            wait_for_consumers(session.settings, on_progress=lambda _name, done: tell(done))
    _export_records(session, to, file_format, as_json=as_json)


def _export_records(session: Session, folder: Path, file_format: str, *, as_json: bool) -> None:
    from workledger.assembly import training_stores
    from workledger.flows.export import export_records

    stores = training_stores(session.settings).chosen_shard_stores()
    with progress("exporting", quiet=as_json) as tell:
        done = export_records(stores, folder, file_format=file_format, on_progress=lambda rows, _total: tell(rows))
    if as_json:
        files = {record_type: str(path) for record_type, path in done.files.items()}
        print_json({"position": done.position, "rows": done.rows, "files": files})
        return
    for record_type, path in done.files.items():
        print_lines(f"{count(done.rows[record_type], 'line')} in {path}")
    print_lines(f"Everything up to position {done.position:,}.")


def _export_chat(session: Session, to: Path, *, min_score: float | None, as_json: bool) -> None:
    from workledger.flows.export import export_chat

    file = to if to.suffix else to / "chat.jsonl"
    with session.connection() as connection, progress("exporting", quiet=as_json) as tell:
        done = export_chat(connection, file, min_score=min_score, on_progress=lambda rows, _total: tell(rows))
    if as_json:
        left_out = done.left_out
        print_json({"file": str(file), "written": done.written, "repaired": done.repaired, "left_out": left_out})
        return
    print_lines(f"{count(done.written, 'example')} in {file}.")
    for reason, number in sorted(done.left_out.items(), key=lambda one: -one[1]):
        print_lines(f"Left out {number:,}: {reason}.")
    if done.repaired:
        print_lines(f"In {count(done.repaired, 'example')}, half a character was replaced by U+FFFD.")
