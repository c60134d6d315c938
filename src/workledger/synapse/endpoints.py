"""The webhooks of a project: where to, with which secrets, how they do, and what could not be delivered."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import psycopg

from workledger.errors import Conflict, InvalidInput, NotFound, WorkledgerError
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load
from workledger.synapse.bus import BusEvent
from workledger.synapse.webhook import Outcome, Sender, body_of, check_secret, check_url

__all__ = [
    "DeadLetter",
    "Endpoint",
    "add",
    "bury",
    "dead_letters",
    "deliver",
    "disable",
    "enable",
    "failed",
    "get",
    "leave",
    "listed",
    "moved_on",
    "remove",
    "set_secrets",
    "take",
    "unbury",
]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TYPE: Final = re.compile(r"[^\s*]{1,100}(\.\*)?")
_MAX_SECRETS: Final = 5
_MAX_ATTEMPTS: Final = 100


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook. `position` is the last event it is done with; `attempts` are those of the event after that."""

    name: str
    url: str
    event_types: list[str] | None
    secrets: list[str] = field(repr=False)
    allow_private: bool
    max_attempts: int
    created_at: datetime
    disabled_reason: str | None
    attempts: int
    last_error: str | None
    next_attempt_in_s: float | None
    position: int
    dead_letters: int

    def wants(self, event_type: str) -> bool:
        """Say whether events of a type go there: it is listed, or `task.*` is for `task.completed`."""
        if self.event_types is None:
            return True
        return event_type in self.event_types or f"{event_type.rpartition('.')[0]}.*" in self.event_types


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that was given up for a webhook."""

    position: int
    event_id: str
    event_type: str
    attempts: int
    reason: str
    failed_at: datetime


def add(
    connection: Connection,
    name: str,
    url: str,
    *,
    secrets: Sequence[str],
    event_types: Sequence[str] | None = None,
    allow_private: bool = False,
    max_attempts: int = 20,
) -> None:
    """Add a webhook; raises `Conflict` when there is one of this name, `InvalidInput` for what cannot be one."""
    if not _NAME.fullmatch(name):
        raise _invalid("name", name, "1 to 100 letters, digits, dots, dashes and underscores, the first no sign")
    for event_type in event_types or ():
        if not _TYPE.fullmatch(event_type):
            raise _invalid("type", event_type, "an event type such as task.completed, or task.*")
    if not 1 <= max_attempts <= _MAX_ATTEMPTS:
        raise _invalid("max_attempts", max_attempts, f"1 to {_MAX_ATTEMPTS}")
    values = (name, check_url(url), list(event_types) if event_types else None, _checked(secrets))
    if not _fetch(connection, "webhook_add", (*values, allow_private, max_attempts)):
        raise Conflict(f"there is a webhook {name!r} already; remove it, or choose another name", entity_id=name)


def listed(connection: Connection) -> list[Endpoint]:
    """Every webhook, by name."""
    return [Endpoint(*row) for row in _fetch(connection, "webhook_list", (None,))]


def get(connection: Connection, name: str) -> Endpoint:
    """One webhook, or `NotFound`."""
    return Endpoint(*_one(connection, "webhook_list", name))


def remove(connection: Connection, name: str) -> None:
    """Remove a webhook with its cursor and its dead letters; raises `NotFound`."""
    _one(connection, "webhook_remove", name)


def set_secrets(connection: Connection, name: str, secrets: Sequence[str]) -> None:
    """Sign with these secrets, the newest first, from the next delivery on; raises `NotFound`."""
    _one(connection, "webhook_secrets", name, _checked(secrets))


def disable(connection: Connection, name: str, *, reason: str) -> None:
    """Deliver nothing more, for a reason; raises `NotFound`."""
    _one(connection, "webhook_disable", name, reason)


def enable(connection: Connection, name: str) -> None:
    """Deliver again, at once; raises `NotFound`."""
    _one(connection, "webhook_enable", name)


# -- for whoever delivers ---------------------------------------------------------------------------------------


def take(connection: Connection, name: str, *, by: str, for_s: float) -> bool:
    """Take a webhook, or keep it, for some seconds; False when it is disabled, gone, or another's."""
    return bool(_fetch(connection, "webhook_take", (name, by, for_s)))


def leave(connection: Connection, name: str, *, by: str) -> None:
    """Let another take it."""
    _run(connection, "webhook_leave", (name, by))


def failed(connection: Connection, name: str, *, by: str, reason: str, again_in_s: float) -> None:
    """Note that the event after the cursor was not taken, and when it is tried again."""
    _run(connection, "webhook_failed", (name, by, reason, again_in_s))


def deliver(endpoint: Endpoint, event: BusEvent, *, source: str, sender: Sender) -> tuple[str, Outcome]:
    """Send an event to a webhook, once; gives the id of the delivery, and what came of it."""
    webhook_id, body = body_of(event, source=source)
    try:
        outcome = sender.send(
            endpoint.url,
            secret_values=endpoint.secrets,
            webhook_id=webhook_id,
            body=body,
            allow_private=endpoint.allow_private,
        )
    except WorkledgerError as error:  # the secret is not where it should be
        outcome = Outcome(status=None, reason=error.message)
    return webhook_id, outcome


def moved_on(connection: Connection, name: str, *, by: str) -> bool:
    """Note that the event after the cursor is done with; False when the webhook is not `by`'s any more."""
    return bool(_fetch(connection, "webhook_moved_on", (name, by)))


def bury(connection: Connection, name: str, letter: DeadLetter) -> None:
    """Put an event with the dead letters."""
    values = (letter.position, letter.event_id, letter.event_type, letter.attempts, letter.reason)
    _run(connection, "webhook_bury", (name, *values))


def unbury(connection: Connection, name: str, position: int) -> None:
    """Remove an event from the dead letters."""
    _run(connection, "webhook_unbury", (name, position))


def dead_letters(connection: Connection, name: str, *, after: int = 0, limit: int = 1000) -> list[DeadLetter]:
    """The dead letters after a position, in the order of the log."""
    return [DeadLetter(*row) for row in _fetch(connection, "webhook_dead_letters", (name, after, limit))]


def _checked(secrets: Sequence[str]) -> list[str]:
    if not 1 <= len(secrets) <= _MAX_SECRETS:
        raise _invalid("secrets", len(secrets), f"1 to {_MAX_SECRETS}")
    return [check_secret(secret) for secret in secrets]


def _invalid(name: str, value: object, limit: str) -> InvalidInput:
    return InvalidInput(f"a webhook's {name} cannot be {value!r}: {limit}", field=name, value=value, limit=limit)


def _one(connection: Connection, statement: str, name: str, *values: Any) -> tuple[Any, ...]:
    rows = _fetch(connection, statement, (name, *values))
    if not rows:
        raise NotFound(
            f"there is no webhook {name!r}; `workledger webhooks list` has them", entity_type="webhook", entity_id=name
        )
    return rows[0]


def _fetch(connection: Connection, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.synapse", statement), values)
        return cursor.fetchall()


def _run(connection: Connection, statement: str, values: tuple[Any, ...]) -> None:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.synapse", statement), values)
