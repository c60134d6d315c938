"""`workledger webhooks`: where events are delivered to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from workledger.cli._exits import FAILED
from workledger.cli._help import examples
from workledger.cli._output import note, print_json, print_lines, print_table
from workledger.cli._session import session_of
from workledger.cli._text import clip, count, when

if TYPE_CHECKING:
    from workledger.synapse.endpoints import Endpoint
    from workledger.synapse.webhook import Outcome

__all__ = ["add_to"]

_ERROR_CHARS = 60

Name = Annotated[str, typer.Argument(metavar="NAME", help="The webhook.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    webhooks = typer.Typer(
        help="Deliver events to URLs, signed by the Standard Webhooks scheme; `workledger up` does it.",
        no_args_is_help=True,
    )
    webhooks.command(
        epilog=examples(
            "workledger webhooks add https://example.com/hooks/ledger --type workflow.completed --type 'task.*'",
            "workledger webhooks add https://example.com/hooks/ledger --name billing --after 0",
        )
    )(add)
    webhooks.command("list", epilog=examples("workledger webhooks list --json"))(list_)
    webhooks.command(epilog=examples("workledger webhooks remove billing"))(remove)
    webhooks.command("test", epilog=examples("workledger webhooks test billing"))(send_test)
    webhooks.command(epilog=examples("workledger webhooks enable billing"))(enable)
    webhooks.command(
        epilog=examples("workledger webhooks rotate billing", "workledger webhooks rotate billing --finish")
    )(rotate)
    webhooks.command(
        "dead", epilog=examples("workledger webhooks dead billing", "workledger webhooks dead billing --redeliver")
    )(dead)
    app.add_typer(webhooks, name="webhooks")


def add(
    context: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="Where to deliver to: https://HOST/PATH.")],
    *,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Its name. Default: the host of the URL.")] = None,
    event_type: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="TYPE", help="Only events of this type, or of 'task.*'; can be repeated."),
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option(metavar="SECRET", help="whsec_…, or env:NAME for the variable that has it. Default: a new one."),
    ] = None,
    after: Annotated[
        int | None,
        typer.Option(min=0, metavar="POSITION", help="Begin after this position. Default: with what is new."),
    ] = None,
    max_attempts: Annotated[int, typer.Option(min=1, max=100, help="Tries before an event is given up.")] = 20,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Deliver to loopback and private addresses, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Add a webhook, and print its secret: the receiver needs it to tell our deliveries from others."""
    from workledger.flows.log_to_webhooks import add_webhook

    session = session_of(context)
    name = name or urlsplit(url).hostname or ""
    with session.connection() as connection:
        secret = add_webhook(
            connection,
            name,
            url,
            schema=session.settings.project,
            secret=secret,
            event_types=event_type,
            after=after,
            allow_private=allow_private,
            max_attempts=max_attempts,
        )
    if as_json:
        print_json({"name": name, "url": url, "secret": secret})
    else:
        print_lines(f"Webhook {name} is added. Its secret, for the receiver:", f"  {secret}")


def list_(context: typer.Context, *, as_json: AsJson = False) -> None:
    """The webhooks, how far each has come, and what keeps it."""
    from workledger.log.reader import head
    from workledger.synapse import endpoints

    with session_of(context).connection() as connection:
        found, log_head = endpoints.listed(connection), head(connection)[0]
    if as_json:
        print_json({"webhooks": [_document(endpoint, log_head) for endpoint in found]})
    elif not found:
        print_lines("There are no webhooks; `workledger webhooks add URL` adds one.")
    else:
        columns = ("NAME", "URL", "TYPES", "LAG#", "DEAD#", "STATE")
        print_table(columns, [_row(endpoint, log_head) for endpoint in found])


def remove(context: typer.Context, name: Name) -> None:
    """Remove a webhook with its cursor and its dead letters."""
    from workledger.synapse import endpoints

    with session_of(context).connection() as connection:
        endpoints.remove(connection, name)
    print_lines(f"Webhook {name} is removed.")


def send_test(context: typer.Context, name: Name, *, as_json: AsJson = False) -> None:
    """Send an event of the type webhook.test now, from here, and say what came of it."""
    from workledger.flows import log_to_webhooks
    from workledger.synapse import endpoints

    session = session_of(context)
    with session.connection() as connection:
        endpoint = endpoints.get(connection, name)
    outcome = log_to_webhooks.send_test(endpoint, schema=session.settings.project)
    if as_json:
        print_json(_result(outcome))
    else:
        print_lines(f"{'Delivered' if outcome.is_delivered else 'Not delivered'}: {outcome.reason}")
    if not outcome.is_delivered:
        raise typer.Exit(FAILED)


def enable(context: typer.Context, name: Name) -> None:
    """Deliver again to a webhook that was disabled, or that waits for its next try."""
    from workledger.synapse import endpoints

    with session_of(context).connection() as connection:
        endpoints.enable(connection, name)
    print_lines(f"Webhook {name} is delivered to again.")


def rotate(
    context: typer.Context,
    name: Name,
    *,
    secret: Annotated[
        str | None, typer.Option(metavar="SECRET", help="whsec_… or env:NAME. Default: a new one.")
    ] = None,
    finish: Annotated[bool, typer.Option("--finish", help="Sign with the newest secret alone from now on.")] = False,
    as_json: AsJson = False,
) -> None:
    """Sign with a new secret as well as the old one; with --finish, forget the old one."""
    from workledger.flows import log_to_webhooks
    from workledger.synapse import endpoints

    with session_of(context).connection() as connection:
        if finish:
            newest = endpoints.get(connection, name).secrets[0]
            endpoints.set_secrets(connection, name, [newest])
        else:
            newest = log_to_webhooks.rotate(connection, name, secret=secret)
    if as_json:
        print_json({"name": name, "secret": newest})
    elif finish:
        print_lines(f"Webhook {name} signs with its newest secret alone.")
    else:
        print_lines(
            f"Webhook {name} signs with both secrets. The new one, for the receiver:",
            f"  {newest}",
            f"When the receiver has it: workledger webhooks rotate {name} --finish",
        )


def dead(
    context: typer.Context,
    name: Name,
    *,
    redeliver: Annotated[bool, typer.Option("--redeliver", help="Try them once more, now, from here.")] = False,
    as_json: AsJson = False,
) -> None:
    """The events that were given up for a webhook; with --redeliver, those that are taken leave the list."""
    from workledger.flows import log_to_webhooks
    from workledger.synapse import endpoints

    session = session_of(context)
    failures = 0
    with session.connection() as connection:
        if redeliver:
            for letter, outcome in log_to_webhooks.redeliver(connection, name, schema=session.settings.project):
                failures += not outcome.is_delivered
                note(f"{letter.position}: {outcome.reason}")
        endpoints.get(connection, name)
        letters = endpoints.dead_letters(connection, name)
    if as_json:
        print_json({"dead_letters": letters})
    elif not letters:
        print_lines(f"Webhook {name} has no dead letters.")
    else:
        rows = [(each.position, each.event_type, each.attempts, when(each.failed_at), each.reason) for each in letters]
        print_table(("POSITION#", "TYPE", "TRIES#", "GIVEN UP", "REASON"), rows)
    if failures:
        raise typer.Exit(FAILED)


def _row(endpoint: Endpoint, log_head: int) -> tuple[Any, ...]:
    types = "all" if endpoint.event_types is None else ", ".join(endpoint.event_types)
    return endpoint.name, endpoint.url, types, log_head - endpoint.position, endpoint.dead_letters, _state(endpoint)


def _state(endpoint: Endpoint) -> str:
    if endpoint.disabled_reason is not None:
        return f"disabled: {clip(endpoint.disabled_reason, _ERROR_CHARS)}"
    if endpoint.attempts:
        again = max(endpoint.next_attempt_in_s or 0, 0)
        reason = clip(endpoint.last_error or "", _ERROR_CHARS)
        return f"{count(endpoint.attempts, 'failed try')}, next in {again:.0f}s: {reason}"
    return "well"


def _document(endpoint: Endpoint, log_head: int) -> dict[str, Any]:
    names = ("name", "url", "event_types", "allow_private", "max_attempts", "created_at", "disabled_reason", "attempts")
    more = ("last_error", "next_attempt_in_s", "position", "dead_letters")
    return {name: getattr(endpoint, name) for name in (*names, *more)} | {"lag": log_head - endpoint.position}


def _result(outcome: Outcome) -> dict[str, Any]:
    return {"delivered": outcome.is_delivered, "status": outcome.status, "reason": outcome.reason}
