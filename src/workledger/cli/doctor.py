"""`workledger doctor`: what is there, how it is, and what to do about it."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from workledger.cli._exits import FAILED
from workledger.cli._help import examples
from workledger.cli._output import note, print_json, print_lines, print_table, styled
from workledger.cli._session import session_of
from workledger.cli._text import count

__all__ = ["add_to"]

_STYLE: Final = {"ok": "green", "info": "dim", "warning": "yellow", "fault": "bold red"}


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples("workledger doctor", "workledger doctor --json"))(doctor)


def doctor(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Look at everything: versions, settings and their sources, servers, schema, log, lags, workers, stores.

    Says what is wrong and what to do about it. Starts nothing and changes nothing. The exit code is 1 when there is a
    fault; warnings are not faults.
    """
    from workledger.cli._diagnosis import diagnose, settings_with_sources

    session = session_of(context)
    settings = settings_with_sources(session.given)
    findings = list(diagnose(session.settings))
    faults = [finding for finding in findings if finding.state == "fault"]
    if as_json:
        print_json({"ok": not faults, "findings": findings, "settings": settings})
    else:
        print_lines(styled("Settings", "bold"))
        print_table(("SETTING", "VALUE", "FROM"), [(one.name, one.value, one.source) for one in settings])
        print_lines("", styled("Findings", "bold"))
        for finding in findings:
            mark = styled(f"{finding.state:<8}", _STYLE[finding.state])
            print_lines(mark + styled(f" {finding.area:<18} {finding.what}"))
            if finding.way_out is not None:
                print_lines(f"{'':<28}→ {finding.way_out}")
    if faults:
        note(f"error: {count(len(faults), 'fault')}: {faults[0].area}: {faults[0].what}")
        raise typer.Exit(FAILED)
