"""`workledger events`: the log, newest events, or as it grows."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from workledger.cli._help import examples
from workledger.cli._output import print_json, print_lines
from workledger.cli._session import Session, session_of
from workledger.cli._text import clip, printable
from workledger.errors import InvalidInput

if TYPE_CHECKING:
    from workledger.model.records import Event
    from workledger.postgres.connection import Connection

__all__ = ["add_to"]

_PAYLOAD_CHARS: Final = 160
_SEVERITY_STYLE: Final = {"debug": "dim", "warning": "yellow", "error": "red", "critical": "bold red"}


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "workledger events -n 50 --type task.failed",
            "workledger events -f",
            "workledger events --after 1000 --limit 500 --json",
            "workledger events --all > log.ndjson",
        )
    )(events)


def events(
    context: typer.Context,
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="Begin with this many of the newest events.")] = 20,
    after: Annotated[
        int | None, typer.Option(min=0, metavar="POSITION", help="Begin after this position of the log instead.")
    ] = None,
    event_type: Annotated[str | None, typer.Option("--type", metavar="NAME", help="Only this type of event.")] = None,
    entity: Annotated[
        str | None, typer.Option(metavar="TYPE/ID", help="Only events of one entity, e.g. task/0198… or workflow/w1.")
    ] = None,
    workflow: Annotated[str | None, typer.Option(metavar="ID", help="Only events of one workflow.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the log grows, until Ctrl-C.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Print the whole log, or all after --after: one line of JSON for each event.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document; with --follow one line for each event.")
    ] = False,
) -> None:
    """The event log in the order of its positions: the newest events, what comes as it comes, or all of it."""
    from workledger.flows.log_to_synapse import bring_up_to_date
    from workledger.log import follow as log_follow

    session = session_of(context)
    if everything:
        if event_type or entity or workflow or follow:
            raise InvalidInput(
                "--all prints every event; leave out --type, --entity, --workflow and --follow, or leave out --all",
                field="--all",
                value=True,
                limit="alone or with --after",
            )
        _print_all(session, after=after or 0)
        return
    wanted = _Filter(event_type=event_type, entity=entity, workflow=workflow)
    with session.connection() as connection:
        head = bring_up_to_date(connection, schema=session.settings.project)
        found = wanted.first(connection, after=after, limit=limit, head=head)
        if not follow and as_json:
            print_json({"head": head, "events": [_document(event) for event in found]})
            return
        _print(found, as_json=as_json)
        if follow:
            start = max(head, after or 0) if after is None or not found else found[-1].position or head
            schema, listening = session.settings.project, not session.settings.pooled
            for event in log_follow.follow(connection, schema=schema, after=start, listening=listening):
                if wanted.admits(event):
                    _print([event], as_json=as_json)


def _print_all(session: Session, *, after: int) -> None:
    from functools import partial

    from workledger.assembly import open_connection
    from workledger.flows.log_to_synapse import bring_up_to_date
    from workledger.log.follow_lines import lines

    with session.connection() as connection:
        head = bring_up_to_date(connection, schema=session.settings.project)
        another = partial(open_connection, session.settings)
        sys.stdout.buffer.writelines(lines(connection, after=after, upto=head, connect=another))
        sys.stdout.flush()


class _Filter:
    """Which events are wanted."""

    def __init__(self, *, event_type: str | None, entity: str | None, workflow: str | None) -> None:
        self._type = event_type
        self._workflow = workflow
        self._entity_type, self._entity_id = _split(entity)

    def admits(self, event: Event) -> bool:
        """Say whether an event is wanted."""
        return (
            self._type in {None, event.event_type}
            and self._workflow in {None, event.workflow_id}
            and self._entity_type in {None, event.entity_type}
            and self._entity_id in {None, event.entity_id}
        )

    def first(self, connection: Connection, *, after: int | None, limit: int, head: int) -> list[Event]:
        """The wanted events to begin with, in the order of the log."""
        from workledger.log import reader

        if after is not None:
            rows = reader.iterate(connection, after=after, upto=head)
            return [event for event, _ in zip(filter(self.admits, rows), range(limit), strict=False)]
        if self._workflow is not None:
            rows = [event for event in reader.of_workflow(connection, self._workflow) if self.admits(event)]
            return rows[len(rows) - min(limit, len(rows)) :]
        newest = reader.newest(
            connection,
            event_type=self._type,
            entity_type=self._entity_type,
            entity_id=self._entity_id,
            limit=limit,
        )
        return newest[::-1]


def _split(entity: str | None) -> tuple[str | None, str | None]:
    if entity is None:
        return None, None
    kind, slash, entity_id = entity.partition("/")
    if not kind or not entity_id or not slash:
        raise InvalidInput(
            f"--entity {entity!r} is not TYPE/ID, for example workflow/2026-11-22 or task/0198…",
            field="entity",
            value=entity,
            limit="TYPE/ID",
        )
    return kind, entity_id


def _print(found: list[Event], *, as_json: bool) -> None:
    if as_json:
        for event in found:
            print_json(_document(event), indent=None)
    else:
        print_lines(*(_line(event) for event in found))


def _line(event: Event) -> Any:
    from rich.text import Text

    style = _SEVERITY_STYLE.get(event.severity, "")
    payload = clip(printable(event.payload_json), _PAYLOAD_CHARS)
    line = Text(no_wrap=True, overflow="ignore")
    line.append(f"{event.position or '-':>8}  {event.created_at.isoformat(' ', 'milliseconds')[:23]}Z  ", "dim")
    line.append(f"{printable(event.event_type):<24}  ", style or "cyan")
    line.append(f"{printable(event.entity_type)}/{printable(event.entity_id)}  ")
    line.append(payload, "dim")
    return line


def _document(event: Event) -> dict[str, Any]:
    fields = {name: getattr(event, name) for name in event.__struct_fields__ if name != "payload_json"}
    return {**fields, "payload": event.payload}
