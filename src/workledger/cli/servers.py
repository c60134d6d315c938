"""`workledger up` and `workledger stop`: what runs in the background."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from workledger.cli import _running
from workledger.cli._exits import FAILED
from workledger.cli._help import examples
from workledger.cli._output import note, print_json, print_lines, styled
from workledger.cli._session import Session, session_of
from workledger.errors import ConfigurationError, MissingExtra, WorkledgerError

if TYPE_CHECKING:
    from workledger.flows.up import Loop, Step
    from workledger.sdk.ledger import Ledger
    from workledger.settings import Settings

__all__ = ["add_to"]

logger = logging.getLogger(__name__)

_READY_TIMEOUT_S: Final = 45.0
_DETACH_TIMEOUT_S: Final = 60.0


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog=examples("workledger up", "workledger up --detach", "workledger up --only training --only metrics")
    )(up)
    app.command(epilog=examples("workledger stop"))(stop)


# -- up ---------------------------------------------------------------------------------------------------------


def up(
    context: typer.Context,
    *,
    only: Annotated[list[str] | None, typer.Option(metavar="LOOP", help="Only this loop; can be repeated.")] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Run in the background; `workledger stop` ends it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document: what runs and where.")] = False,
) -> None:
    """Run everything that loops: sequencer, Synapse, training writers, metrics, webhooks, reaper and dashboard.

    Prints where things are, and runs until Ctrl-C. Several copies are safe, on one machine or on many; a copy that
    finds an address taken goes on without it and takes it over when it becomes free. A loop that fails says so once
    and tries again, while the others go on. The loops are: sequencer, synapse, training, maintenance, metrics, influx,
    prometheus, webhooks, reaper, sealer, checkpoints, partitions, archiver, collector, dashboard.
    """
    session = session_of(context)
    _check_names(session.settings, only or ())
    if detach:
        running = _run_detached(session, only or ())
    else:
        _run_here(session, only or (), as_json=as_json)
        return
    if as_json:
        print_json(running)
    else:
        _print(running, session.settings)


def _run_here(session: Session, only: Sequence[str], *, as_json: bool) -> None:
    from workledger.assembly import make_loops, open_ledger
    from workledger.flows.up import Supervisor

    _log_to_stderr()
    settings, stop_asked = session.settings, _stop_on_signals()
    with _running.announce_myself(settings.home, settings.project) as announcement, open_ledger(settings) as ledger:
        running = announcement.running
        loops = [*make_loops(settings, ledger, announce=running.urls.__setitem__)]
        loops += _dashboard_loops(settings, ledger, running.urls.__setitem__)
        loops = [loop for loop in loops if not only or loop.name in only]
        running.loops = [loop.title for loop in loops]
        with Supervisor(loops) as supervisor:
            _wait_until_ready(running, supervisor.errors, stop_asked)
            running.ready = True
            announcement.write()
            if as_json:
                print_json(running)
            else:
                _print(running, settings)
            while not stop_asked.wait(1.0):
                pass
            note("stopping")
            if late := supervisor.stop():
                note(f"did not end in time: {', '.join(late)}")


def _check_names(settings: Settings, only: Sequence[str]) -> None:
    from workledger.assembly import LOOPS

    known = (*LOOPS, "dashboard")
    for name in only:
        if name not in known:
            raise ConfigurationError(
                f"there is no loop {name!r}; there are {', '.join(known)}", setting="only", value=name
            )
    for name, url, package, extra in (
        ("dashboard", settings.dashboard_url, "fastapi", "server"),
        ("prometheus", settings.metrics_url, "prometheus_client", "metrics"),
    ):
        if name in only and url and find_spec(package) is None:
            raise MissingExtra(f"the loop {name!r} needs an extra: pip install 'workledger[{extra}]'", extra=extra)


def _stop_on_signals() -> threading.Event:
    """An event that the first SIGINT or SIGTERM sets; a second one ends the process as usual."""
    asked = threading.Event()

    def ask(number: int, _frame: object) -> None:
        asked.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    return asked


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    ours = logging.getLogger("workledger")
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False


def _wait_until_ready(running: _running.Running, errors: Callable[[], dict[str, str]], stop: threading.Event) -> None:
    """Wait until what listens does, or has said why not."""
    expected = {"dashboard": "dashboard", "prometheus": "metrics"}
    deadline_s = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline_s and not stop.wait(0.02):
        waiting = [loop for loop, url in expected.items() if loop in running.loops and url not in running.urls]
        if all(loop in errors() for loop in waiting):
            return


# -- the dashboard ----------------------------------------------------------------------------------------------


def _dashboard_loops(settings: Settings, ledger: Ledger, announce: Callable[[str, str], None]) -> list[Loop]:
    from workledger.flows.up import Loop

    if not settings.dashboard_url:
        return []
    if find_spec("fastapi") is None or find_spec("uvicorn") is None or find_spec("jinja2") is None:
        note("no dashboard: it is not installed (pip install 'workledger[server]')")
        return []
    return [Loop(name="dashboard", open=partial(_serving, settings, ledger, announce), pause_s=1.0)]


@contextmanager
def _serving(
    settings: Settings, ledger: Ledger, announce: Callable[[str, str], None], _stop: threading.Event
) -> Generator[Step]:
    from workledger.assembly import training_stores
    from workledger.server import app, serve, sources

    host, port = serve.read_url(settings.dashboard_url)
    training = sources.training_facts(training_stores(settings).chosen_shard_stores())
    page = sources.metrics_page(ledger.pool)
    made = app.create_app(ledger, project=settings.project, training=training, metrics=page)
    server = serve.DashboardServer(made, host, port)

    def check() -> int:
        if not server.is_alive:
            raise WorkledgerError("the dashboard's server has ended")
        return 0

    announce("dashboard", server.start())
    try:
        yield check
    finally:
        server.stop()


# -- in the background ------------------------------------------------------------------------------------------


def _run_detached(session: Session, only: Sequence[str]) -> _running.Running:
    settings = session.settings
    for running in _running.find(settings.home):
        if running.project == settings.project and not only:
            note(f"already running as process {running.pid}")
            return running
    log = settings.home / "up" / "log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        began_at = output.tell()
        process = subprocess.Popen(  # noqa: S603  our own interpreter and our own module
            [sys.executable, "-m", "workledger.cli.main", *_as_options(session), "up", *_repeated("--only", only)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    running = _wait_for(process, settings.home)
    if running is None:
        said = log.read_bytes()[began_at:].decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
        reason = said[-1].removeprefix("error: ")
        raise WorkledgerError(f"`workledger up` did not come up: {reason} (its output is in {log})")
    return running


def _as_options(session: Session) -> list[str]:
    return [part for name, value in session.given.items() for part in (f"--{name.replace('_', '-')}", os.fspath(value))]


def _repeated(option: str, values: Sequence[str]) -> list[str]:
    return [part for value in values for part in (option, value)]


def _wait_for(process: subprocess.Popen[bytes], home: Path) -> _running.Running | None:
    deadline_s = time.monotonic() + _DETACH_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline_s:
        for running in _running.find(home):
            if running.pid == process.pid and running.ready:
                return running
        time.sleep(0.05)
    return None


# -- stop -------------------------------------------------------------------------------------------------------


def stop(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Stop what runs for this home folder: every `workledger up`, and the embedded PostgreSQL and Valkey.

    What was committed stays; the next command starts what it needs again.
    """
    home = session_of(context).settings.home
    stopped: list[str] = []
    stuck: list[str] = []
    for running in _running.find(home):
        name = f"up (process {running.pid}, project {running.project})"
        (stopped if _running.stop(home, running) else stuck).append(name)
    stopped += _stop_servers(home)
    if as_json:
        print_json({"stopped": stopped, "still_running": stuck})
    else:
        print_lines(f"Stopped {', '.join(stopped)}." if stopped else f"Nothing was running for {home}.")
    if stuck:
        note(f"error: still running: {', '.join(stuck)}; end it with kill -9")
        raise typer.Exit(FAILED)


def _stop_servers(home: Path) -> list[str]:
    """Stop the embedded servers that are there. Their classes are imported only then: one needs an extra."""
    stopped: list[str] = []
    for folder, module, name in (
        ("valkey", "workledger.synapse.embedded", "EmbeddedValkey"),
        ("postgres", "workledger.postgres.embedded", "EmbeddedPostgres"),
    ):
        if (home / folder).exists():
            server: Any = getattr(importlib.import_module(module), name)(home / folder)
            if server.is_running():
                server.stop()
                stopped.append(f"embedded {folder}")
    return stopped


def _print(running: _running.Running, settings: Settings) -> None:
    print_lines(styled(f"Workledger is up: project {running.project}, process {running.pid}.", "bold"))
    for name, url in sorted(running.urls.items()):
        print_lines(f"  {name:<10} {url}")
    print_lines(f"  {'training':<10} {settings.training_url}", f"  {'loops':<10} {', '.join(running.loops)}")
