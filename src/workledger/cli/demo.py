"""`workledger demo`: real work, recorded once and found again in every store."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from workledger.cli._exits import FAILED
from workledger.cli._help import examples
from workledger.cli._output import note, print_json, print_lines, print_table, styled
from workledger.cli._session import Session, session_of
from workledger.cli._text import count
from workledger.training.shard_store import has_shards

if TYPE_CHECKING:
    from workledger.flows.verify import Check
    from workledger.model.records import Event, TaskExecution, Workflow
    from workledger.sdk.ledger import Ledger

__all__ = ["add_to"]

_RUN_CHARS: Final = 8


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples("workledger demo", "workledger --project tryout demo"))(demo)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recorded:
    """What PostgreSQL holds of one run of the demo."""

    workflows: list[Workflow]
    executions: list[TaskExecution]
    messages: int
    feedback: int
    events: list[Event]

    @property
    def study(self) -> Workflow:
        """A workflow worth looking at: the agent that had to find another way."""
        return self.workflows[2]

    @property
    def failed(self) -> Workflow:
        """The one that failed."""
        return next(workflow for workflow in self.workflows if workflow.status == "failed")


def demo(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Record real work and find it again in every store: the tour, in about ten seconds.

    A batch job indexes the sources of Python's standard library while four agents study modules with tools: they
    plan, call tools, wait for a catalogue that is locked, meet a module that does not exist and find another way,
    keep a conversation, write a report and check it. One fails. Then everything is brought through the bus into
    training files and metrics, and verified. It needs no network and no model, and can be run again and again.
    """
    from workledger.assembly import verify, wait_for_consumers

    session, began_s = session_of(context), time.monotonic()
    tell = _say_nothing if as_json else note
    tell("1/3  working and recording: an index of the standard library, and four agents that study it")
    recorded = _work(session)
    tell("2/3  bringing the log through the bus into training files and metrics")
    wait_for_consumers(session.settings)
    tell("3/3  checking every store against the log")
    checks = list(verify(session.settings))
    took_s = time.monotonic() - began_s
    if as_json:
        print_json(_document(session, recorded, checks, took_s))
    else:
        _print(session, recorded, checks, took_s)
    if faults := sum(check.fault_count for check in checks):
        note(f"error: {count(faults, 'fault')} found; `workledger verify` names them")
        raise typer.Exit(FAILED)


def _say_nothing(_text: str) -> None:
    """Print nothing: there is one JSON document and nothing beside it."""


def _work(session: Session) -> _Recorded:
    from workledger.cli._demo import record
    from workledger.cli._demo_tools import Library
    from workledger.model.ids import new_id

    run_id = new_id()[-_RUN_CHARS:]
    with session.ledger() as ledger:
        ids = record(ledger, Library(session.settings.home / "demo" / run_id), run_id=run_id)
        return _read(ledger, ids)


def _read(ledger: Ledger, ids: list[str]) -> _Recorded:
    from workledger.log import reader

    workflows = [ledger.get_workflow(workflow_id) for workflow_id in ids]
    with ledger.pool.connection() as connection:
        events = [event for workflow_id in ids for event in reader.of_workflow(connection, workflow_id)]
    return _Recorded(
        workflows=workflows,
        executions=[execution for workflow_id in ids for execution in ledger.executions(workflow_id)],
        messages=sum(len(ledger.messages(w.conversation_id)) for w in workflows if w.conversation_id),
        feedback=sum(len(ledger.feedback_of(workflow_id)) for workflow_id in ids),
        events=events,
    )


def _document(session: Session, recorded: _Recorded, checks: list[Check], took_s: float) -> dict[str, Any]:
    return {
        "project": session.settings.project,
        "workflows": {workflow.workflow_id: workflow.status for workflow in recorded.workflows},
        "executions": Counter(execution.status for execution in recorded.executions),
        "messages": recorded.messages,
        "feedback": recorded.feedback,
        "events": len(recorded.events),
        "training": _training(session),
        "bus": _bus(session),
        "ok": all(check.ok for check in checks),
        "checks": {check.name: check.counts for check in checks},
        "took_s": round(took_s, 3),
    }


def _training(session: Session) -> dict[str, Any]:
    from workledger.assembly import training_stores

    rows: Counter[str] = Counter()
    stores = training_stores(session.settings)
    store = (stores.chosen_shard_stores() or stores.open_all())[0]
    if has_shards(store):
        for entry in store.entries():
            rows.update(entry.rows)
    place = _short(Path(store.name)) if store.name.startswith("/") else store.name
    return {"folder": str(place), "position": store.position(), "rows": dict(rows)}


def _bus(session: Session) -> str:
    from workledger.assembly import has_bus

    settings = session.settings
    if not has_bus(settings):
        return "none: training files and metrics read straight from PostgreSQL"
    where = "embedded Valkey" if settings.synapse_url in {"", "embedded:"} else "Redis"
    return f"{where}, stream workledger:{{{settings.project}}}:events"


def _print(session: Session, recorded: _Recorded, checks: list[Check], took_s: float) -> None:
    training = _training(session)
    executions, ends = recorded.executions, Counter(execution.status for execution in recorded.executions)
    retries = sum(execution.retry_count > 0 for execution in executions)
    states = Counter(workflow.status for workflow in recorded.workflows)
    rows = ", ".join(f"{number:,} {kind}" for kind, number in training["rows"].items())
    numbers = next((check.counts.get("numbers", 0) for check in checks if check.name == "metrics"), 0)
    print_lines("", styled(f"Recorded once, in {took_s:.1f} s; found in every store:", "bold"))
    told_ends = f"{ends['completed']} completed, {ends['failed']} failed, {retries} of them retries"
    told_talk = f"{count(recorded.messages, 'message')} in {len(recorded.workflows) - 1} conversations"
    print_table(
        ("STORE", "WHAT IS THERE"),
        [
            ("state", f"{count(len(recorded.workflows), 'workflow')}: {states['completed']} completed, 1 failed"),
            ("", f"{count(len(executions), 'execution')}: {told_ends}"),
            ("", f"{told_talk}, {count(recorded.feedback, 'feedback row')}"),
            ("log", f"{count(len(recorded.events), 'event')} of these workflows"),
            ("bus", _bus(session)),
            ("training", f"{training['folder']}: {rows} (up to position {training['position']:,})"),
            ("metrics", f"{count(numbers, 'number')}, each equal to what the log adds up to"),
            ("verify", "every store agrees" if all(check.ok for check in checks) else "FAULTS"),
        ],
    )
    print_lines("", styled("Look at it:", "bold"))
    print_table(("COMMAND", "SHOWS"), _next_steps(session, recorded, training["folder"]))


def _next_steps(session: Session, recorded: _Recorded, folder: str) -> list[tuple[str, str]]:
    options = "".join(f" --{name.replace('_', '-')} {value}" for name, value in session.given.items())
    command = f"{_program()}{options}"
    report = recorded.study.output_data["written_to"]
    return [
        (f"{command} show {recorded.study.workflow_id}", "an agent that met a missing module and found another way"),
        (f"{command} show {recorded.failed.workflow_id}", "the failed one, with its traceback"),
        (f"{command} failed", "every failed attempt, retries too"),
        (f"{command} events -n 20", "the end of the log"),
        (f"{command} up", "dashboard, metrics endpoint and everything that loops; Ctrl-C stops it"),
        (f"tail -n 1 {folder}/workflows/*.jsonl", "a training line"),
        (f"cat {_short(Path(report))}", "the report an agent wrote"),
        (f"{command} verify", "all checks again"),
    ]


def _program() -> str:
    """What this program is called here: its name where a shell finds it, or else the path to it."""
    if shutil.which("workledger"):
        return "workledger"
    beside_python = Path(sys.executable).with_name("workledger")
    if beside_python.exists():
        return shlex.quote(str(_short(beside_python)))
    return f"{shlex.quote(sys.executable)} -m workledger"


def _short(path: Path) -> Path:
    """A path as one would type it here."""
    here = Path.cwd()
    return path.absolute().relative_to(here) if path.absolute().is_relative_to(here) else path
