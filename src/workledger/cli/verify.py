"""`workledger verify`: the stores against each other."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from workledger.cli._exits import FAILED
from workledger.cli._help import examples
from workledger.cli._output import note, print_json, print_lines, progress, styled
from workledger.cli._session import session_of
from workledger.cli._text import count
from workledger.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from workledger.flows.verify import Check

__all__ = ["add_to"]

_FAULTS_SHOWN: Final = 20


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples("workledger verify", "workledger verify --wait --json", "workledger verify --training --repair")
    )(verify)


def verify(
    context: typer.Context,
    *,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Only: does replaying the log give the state?")] = False,
    training: Annotated[bool, typer.Option("--training", help="Only: does the training store hold the log?")] = False,
    metrics: Annotated[bool, typer.Option("--metrics", help="Only: do the counters equal the log?")] = False,
    seals: Annotated[bool, typer.Option("--seals", help="Only: do the seals of the log hold?")] = False,
    key: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Trust this public key for seals; can be repeated.")
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE", help="Compare the seals with the checkpoints kept there. Default: the settings'."
        ),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="With --training: refill what a store lacks, from the log.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="First let training store, metrics and seals catch up.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check every store against the log, and say what was checked, with counts.

    Without options everything is checked: positions are dense and each event has one (log), events follow each other
    as their guards allow (events), large values have the content their digests name (payloads), replaying the log
    gives the state tables column by column (state), the training store holds every position once (training), the
    counters equal the log (metrics), and what is sealed is unchanged (seals). A fault is named by its row and column,
    and the exit code is then 1. A consumer that is behind has a lag, which is no fault. Safe while others record.
    Every training store is checked, of files or of lake tables; with --repair, exactly what is missing or altered is
    written again.
    """
    from workledger.assembly import verify as run
    from workledger.assembly import wait_for_consumers

    session = session_of(context)
    if repair and not training:
        raise InvalidInput("--repair goes with --training", field="repair", value=repair, limit="--training")
    chosen = {"state": rebuild, "training": training, "metrics": metrics, "seals": seals}
    names = [name for name, asked in chosen.items() if asked]
    if wait:
        with _progress("catching up", quiet=as_json) as tell:
            wait_for_consumers(session.settings, on_progress=tell)
    checks: list[Check] = []
    with _progress("checking", quiet=as_json) as tell:
        for check in run(
            session.settings, names=names, keys=key or (), checkpoints=checkpoints, repair=repair, on_progress=tell
        ):
            checks.append(check)
            if not as_json:
                _print(check, several=len(session.settings.training_url.split()) > 1)
    faults = sum(check.fault_count for check in checks)
    if as_json:
        print_json({"ok": not faults, "faults": faults, "checks": [_document(check) for check in checks]})
    elif not faults:
        print_lines(styled("Everything that was checked agrees.", "green"))
    if faults:
        note(f"error: {count(faults, 'fault')} found; the stores do not agree")
        raise typer.Exit(FAILED)


@contextmanager
def _progress(what: str, *, quiet: bool) -> Generator[Callable[[str, int], None]]:
    with progress(what, quiet=quiet) as tell:
        yield lambda _name, done: tell(done)


def _print(check: Check, *, several: bool) -> None:
    mark, style = ("ok   ", "green") if check.ok else ("FAULT", "bold red")
    counts = ", ".join(f"{number:,} {noun}" for noun, number in check.counts.items())
    print_lines(
        styled(mark, style) + styled(f"  {check.name:<9} {check.promise}: ") + styled(counts or "nothing", "dim")
    )
    if check.store and several:
        print_lines(f"       {'':<9} {check.store}")
    if check.lag:
        print_lines(
            f"       {'':<9} behind the log by {count(check.lag, 'position')} (no fault; --wait lets it catch up)"
        )
    if check.note:
        print_lines(f"       {'':<9} {check.note}")
    for fault in check.faults[:_FAULTS_SHOWN]:
        print_lines(styled(f"       {fault}", "red"))
    if check.fault_count > _FAULTS_SHOWN:
        print_lines(f"       … {count(check.fault_count - _FAULTS_SHOWN, 'more fault')}; --json lists more")


def _document(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "store": check.store,
        "promise": check.promise,
        "ok": check.ok,
        "counts": check.counts,
        "lag": check.lag,
        "note": check.note,
        "fault_count": check.fault_count,
        "faults": check.faults,
    }
