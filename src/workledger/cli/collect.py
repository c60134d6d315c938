"""`workledger collect`: stored values that nothing refers to, removed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from workledger.cli._help import examples
from workledger.cli._output import print_json, print_lines
from workledger.cli._session import session_of
from workledger.cli._text import count, parse_since, size

if TYPE_CHECKING:
    from workledger.flows.collect import Collected

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples("workledger collect --dry-run", "workledger collect", "workledger collect --json"))(
        collect
    )


def collect(
    context: typer.Context,
    older_than: Annotated[str, typer.Option(metavar="AGE", help="Only values stored so long ago.")] = "1d",
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Remove large values that are stored by digest and that nothing refers to any more.

    They are what archiving, erasure and refused writes leave behind. The whole log is read to find out, and nobody is
    held up: safe while others record, and in several copies. Needs the rights of the owner of the tables.
    """
    from workledger.assembly import open_connection
    from workledger.flows.collect import collect_payloads

    settings = session_of(context).settings
    now = datetime.now(UTC)
    min_age = now - parse_since(older_than, now=now, option="--older-than")
    with open_connection(settings) as connection:
        done = collect_payloads(connection, schema=settings.project, min_age=min_age, dry_run=dry_run)
    if as_json:
        print_json(_document(done, dry_run=dry_run))
    else:
        print_lines(_told(done, dry_run=dry_run))


def _told(done: Collected, *, dry_run: bool) -> str:
    looked = f"Looked at {count(done.looked_at, 'stored value')}"
    if dry_run:
        return f"{looked}: nothing refers to {done.unused:,} of them ({size(done.removed_bytes)})."
    busy = f"; {done.busy:,} were locked all the time" if done.busy else ""
    return f"{looked}: removed {done.removed:,} that nothing refers to ({size(done.removed_bytes)}){busy}."


def _document(done: Collected, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "looked_at": done.looked_at,
        "unused": done.unused,
        "removed": done.removed,
        "bytes": done.removed_bytes,
        "busy": done.busy,
    }
