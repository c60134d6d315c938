"""`workledger archive`: finished history into files, and out of the database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workledger.cli._help import examples
from workledger.cli._output import note, print_json, print_lines, print_table, styled
from workledger.cli._session import session_of
from workledger.cli._text import count, parse_since, size, when

if TYPE_CHECKING:
    from workledger.flows.archive import ArchiveReport
    from workledger.flows.archive_events import Moved

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "workledger archive --older-than 90d --dry-run",
            "workledger archive --older-than 90d",
            "workledger archive --older-than 52w --to file:/mnt/lake/workledger",
        )
    )(archive)


def archive(
    context: typer.Context,
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="What ended so long ago: 90d, 52w, or before an ISO time.")
    ],
    to: Annotated[
        str | None, typer.Option(metavar="URL", help="Where to. Default: archive_url, or beside the training store.")
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be archived, and what not.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="First let training store, metrics and seals catch up.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Move finished history into Parquet files, verify them against the log and its seals, and free its room.

    Workflows that ended so long ago leave the state tables with their executions, conversations and feedback; months
    of the log leave when every workflow that has events in them has left. Archived events stay readable by the same
    commands, and `workledger verify` covers them. Safe while others record, and to run again: killed anywhere, it goes
    on where it was. Needs the rights of the owner of the tables.
    """
    from workledger.assembly import archive as run
    from workledger.assembly import wait_for_consumers

    settings = session_of(context).settings
    before = parse_since(older_than, now=datetime.now(UTC), option="--older-than")
    if wait and not dry_run:
        wait_for_consumers(settings)
    report = run(settings, before=before, to=to, dry_run=dry_run, on_step=_quiet if as_json else _tell)
    if as_json:
        print_json(_document(report))
    else:
        _print(report)


def _tell(step: str, what: str) -> None:
    if step in {"recorded", "dropped"}:
        note(f"{step} {what}")


def _quiet(_step: str, _what: str) -> None:
    pass


def _print(report: ArchiveReport) -> None:
    state, verb = report.state, "would leave" if report.dry_run else "left"
    stayed = f"; {state.stayed:,} were being written to and stay for now" if state.stayed else ""
    print_lines(
        styled(f"Before {when(report.cutoff)}", "bold"),
        f"{count(state.workflows, 'finished workflow')} {verb} the state tables ({size(state.size_bytes)}){stayed}.",
    )
    if report.partitions:
        print_table(
            ("PARTITION", "EVENTS#", "SIZE#", "WHAT BECAME OF IT"), [_row(one, report) for one in report.partitions]
        )
    else:
        print_lines("No month of the log lies wholly before that.")


def _row(moved: Moved, report: ArchiveReport) -> list[Any]:
    done = "would be archived" if report.dry_run else "archived and dropped"
    what = styled(done, "green") if moved.held is None else styled(f"stays: {moved.held}", "yellow")
    return [
        moved.partition,
        f"{moved.events:,}" if moved.events else "",
        size(moved.size_bytes) if moved.files else "",
        what,
    ]


def _document(report: ArchiveReport) -> dict[str, Any]:
    return {
        "cutoff": report.cutoff,
        "dry_run": report.dry_run,
        "workflows": report.state.workflows,
        "stayed": report.state.stayed,
        "state_files": report.state.files,
        "partitions": report.partitions,
        "dropped": report.dropped,
    }
