"""`workledger cancel`, `workledger resume` and `workledger worker`: asking for something to be done."""

from __future__ import annotations

import importlib
import inspect
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workledger.cli._help import examples
from workledger.cli._output import note, print_json, print_lines
from workledger.cli._session import session_of
from workledger.errors import ConfigurationError, NotFound, WorkledgerError

if TYPE_CHECKING:
    from types import ModuleType

    from workledger.sdk.ledger import Ledger

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=examples('workledger cancel 2026-11-22 --reason "wrong input file"'))(cancel)
    app.command(
        epilog=examples(
            "workledger resume 2026-11-22 --app nightly", "workledger resume 2026-11-22 --app nightly.jobs:ledger"
        )
    )(resume)
    app.command(epilog=examples("workledger worker nightly", "workledger worker nightly.jobs:ledger --concurrency 8"))(
        worker
    )


def cancel(
    context: typer.Context,
    workflow_id: Annotated[str, typer.Argument(metavar="WORKFLOW_ID", help="The workflow to stop.")],
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; it is recorded.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Ask a workflow to stop. The code that runs it sees this before its next task, and ends as cancelled."""
    with session_of(context).ledger() as ledger:
        ledger.cancel(workflow_id, reason=reason)
        workflow = ledger.get_workflow(workflow_id)
    if as_json:
        print_json(
            {"workflow_id": workflow_id, "status": workflow.status, "cancel_requested_at": workflow.cancel_requested_at}
        )
    else:
        print_lines(f"Workflow {workflow_id} was asked to stop; it ends before its next task.")


def resume(
    workflow_id: Annotated[str, typer.Argument(metavar="WORKFLOW_ID", help="The workflow to go on with.")],
    code: Annotated[
        str,
        typer.Option("--app", metavar="MODULE[:LEDGER]", help="The module with the workflow's function and ledger."),
    ],
) -> None:
    """Go on with an unfinished workflow: what its tasks returned is taken from the record, the rest is run.

    The module is imported from the current folder or from what is installed, and must have a ledger
    (`ledger = workledger.open()`) with the workflow's function; it opens the store it says, whatever --database-url
    says here. What the workflow returns is printed as JSON.
    """
    ledger = _ledger_of(code)
    note(f"resuming {workflow_id} in this process ({code})")
    try:
        output = _run(ledger, workflow_id)
    except WorkledgerError:
        raise
    except Exception as error:
        raise WorkledgerError(
            f"workflow {workflow_id!r} failed again: {type(error).__name__}: {error}. "
            f"`workledger show {workflow_id}` has the traceback"
        ) from error
    print_json({"workflow_id": workflow_id, "output": output})


def worker(
    code: Annotated[
        str, typer.Argument(metavar="MODULE[:LEDGER]", help="The module with the workflows' functions and ledger.")
    ],
    concurrency: Annotated[int, typer.Option(min=1, metavar="N", help="So many workflows at a time.")] = 4,
    poll_s: Annotated[
        float, typer.Option("--poll", min=0.05, metavar="SECONDS", help="Look for work this often.")
    ] = 1.0,
    *,
    until_idle: Annotated[bool, typer.Option("--until-idle", help="End when nothing waits any more.")] = False,
) -> None:
    """Run what waits: workflows enqueued for later, and those a dead worker left behind, of the module's functions.

    Interrupted workflows go on where they stopped: finished tasks return what they returned before. Several
    workers may run at once, here and elsewhere. Ctrl-C or SIGTERM ends it when what is running is done.
    """
    from workledger.sdk.worker_loop import WorkerLoop

    ledger = _ledger_of(code)
    names = ledger.definition_names()
    if not names:
        raise NotFound(f"module {code!r} registers no workflow functions", entity_type="definition", entity_id=code)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s", stream=sys.stderr)
    note(f"working for {', '.join(names)}, {concurrency} at a time")
    loop = WorkerLoop(ledger, concurrency=concurrency, poll_s=poll_s)
    if until_idle:
        print_lines(f"Ran {loop.run_until_idle()} workflows; nothing waits.")
    else:
        stop = threading.Event()

        def end(_number: int, _frame: object) -> None:
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        loop.run(stop)
    ledger.close()


def _run(ledger: Ledger, workflow_id: str) -> Any:
    answer = ledger.resume(workflow_id)
    if not inspect.isawaitable(answer):
        return answer
    import asyncio

    async def wait() -> Any:
        return await answer

    return asyncio.run(wait())


def _ledger_of(code: str) -> Ledger:
    from workledger.sdk.ledger import Ledger

    name, _, attribute = code.partition(":")
    module = _import(name)
    if attribute:
        found = [getattr(module, attribute, None)]
    else:
        found = list({id(value): value for value in vars(module).values() if isinstance(value, Ledger)}.values())
    if len(found) == 1 and isinstance(found[0], Ledger):
        return found[0]
    if len(found) > 1:
        raise ConfigurationError(
            f"module {name!r} has {len(found)} ledgers; say which: --app {name}:NAME", setting="app", value=code
        )
    raise NotFound(
        f"module {name!r} has no ledger{f' named {attribute!r}' if attribute else ''}; "
        "it needs one at its top level (ledger = workledger.open())",
        entity_type="ledger",
        entity_id=code,
    )


def _import(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"module {name!r} cannot be imported: {error}; run this from the folder that has it, or install it",
            setting="app",
            value=name,
        ) from error
