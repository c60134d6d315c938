"""The command line: one file per group of commands; what a command needs is imported when it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from workledger._version import __version__
from workledger.cli import (
    archive,
    collect,
    control,
    demo,
    doctor,
    events,
    failed,
    keys,
    migrate,
    prove,
    ps,
    replay,
    seals,
    servers,
    show,
    train_store,
    transfer,
    verify,
    webhooks,
)
from workledger.cli._exits import INTERRUPTED, OK, complain
from workledger.cli._help import flow_helps
from workledger.cli._session import Session

__all__ = ["app", "main"]

_EPILOG: Final = (
    "Global options may stand before or after the command. Exit codes: 0 done, 1 the answer is no (a fault found, "
    "a line refused, a thing not there), 2 wrong use or setting, 3 a store cannot be reached, 130 interrupted."
)

app = typer.Typer(
    name="workledger",
    help="The system of record for workflows and agents: record once, then query, audit, train and measure.",
    epilog=_EPILOG,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _print_version(*, asked: bool) -> None:
    if asked:
        print(f"workledger {__version__}")  # noqa: T201
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    database_url: Annotated[
        str | None, typer.Option(metavar="URL", help="PostgreSQL to use; default: WORKLEDGER_DATABASE_URL, or our own.")
    ] = None,
    project: Annotated[
        str | None, typer.Option(metavar="NAME", help="The project: a schema in the database. Default: workledger.")
    ] = None,
    home: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of our own servers. Default: .workledger.")
    ] = None,
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    given: dict[str, Any] = {"database_url": database_url, "project": project, "home": home}
    context.obj = Session({name: value for name, value in given.items() if value is not None})


for _group in (
    demo,
    servers,
    ps,
    failed,
    show,
    events,
    replay,
    control,
    transfer,
    train_store,
    verify,
    archive,
    collect,
    migrate,
    keys,
    seals,
    prove,
    webhooks,
    doctor,
):
    _group.add_to(app)
flow_helps(app)

_HOISTED: Final = ("--database-url", "--project", "--home")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors are one line on stderr."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Arrow's own allocator keeps what it once needed: with it, landing into a lake takes half as much again. So does
    # each thread of delta-rs and obstore, and we give them one thing to do at a time.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    os.environ.setdefault("TOKIO_WORKER_THREADS", "1")
    try:
        command = typer.main.get_command(app)
        answer = command.main(args=_hoist(given) or ["--help"], prog_name="workledger", standalone_mode=False)
    except KeyboardInterrupt:
        return INTERRUPTED
    except typer.Abort:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  the last place where an error can become one line
        return complain(error)
    return answer if isinstance(answer, int) else OK


def _hoist(arguments: list[str]) -> list[str]:
    """Move global options to the front, so that they work wherever they stand."""
    front: list[str] = []
    rest: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--":
            rest += [argument, *waiting]
        elif argument in _HOISTED:
            front += [argument, *([value] if (value := next(waiting, None)) is not None else [])]
        elif argument.startswith(tuple(f"{option}=" for option in _HOISTED)):
            front.append(argument)
        else:
            rest.append(argument)
    return front + rest


if __name__ == "__main__":
    sys.exit(main())
