"""The arrow from the log to other people's URLs: each webhook gets its events one after the other, at least once.

Every webhook has a cursor of its own (`webhook:NAME`) and a thread of its own, so that a slow one delays no other. A
process takes a webhook for a minute at a time; when it dies, another goes on with the event that was not acknowledged.
An event that is refused is tried again ever more rarely, over restarts, and those behind it wait: that is what keeps
the order. After the last try it goes to the dead letters. The answer 410 disables a webhook.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

import orjson

from workledger.errors import NotFound, Unavailable
from workledger.flows.log_to_synapse import DatabaseTail, bring_up_to_date
from workledger.flows.whole_log import WholeLog
from workledger.log import consumers
from workledger.model.ids import new_id
from workledger.postgres.connection import Connection, translate_errors
from workledger.synapse import endpoints
from workledger.synapse.bus import BusEvent
from workledger.synapse.endpoints import DeadLetter, Endpoint
from workledger.synapse.webhook import Outcome, Sender, new_secret

__all__ = ["WEBHOOK_CONSUMER", "Courier", "Couriers", "add_webhook", "pause_after", "redeliver", "rotate", "send_test"]

logger = logging.getLogger(__name__)

WEBHOOK_CONSUMER: Final = "webhook:"
_PAGE: Final = 200
_LEASE_S: Final = 60.0
_RENEW_S: Final = 15.0
_MAX_PAUSE_S: Final = 3600.0
#: A receiver that is well and does not want an event is asked no more often than this.
_REFUSALS: Final = 5
_LOOK_EVERY_S: Final = 1.0
_MAX_ILL_PAUSE_S: Final = 15.0


def pause_after(attempt: int, outcome: Outcome) -> float:
    """Give the seconds until the next try: twice as many each time up to an hour, or what the receiver asks for."""
    pause_s = min(2.0 ** (attempt - 1), _MAX_PAUSE_S) * random.uniform(0.75, 1.0)
    return max(pause_s, min(outcome.retry_after_s or 0.0, _MAX_PAUSE_S))


class Courier:
    """Delivers to one webhook. Whoever has a courier calls `step` again and again, from one thread, and closes it."""

    def __init__(
        self,
        name: str,
        *,
        connect: Callable[[], Connection],
        schema: str,
        listen: bool = True,
        sender: Sender | None = None,
    ) -> None:
        self.name = name
        self._connect = connect
        self._tail = DatabaseTail(connect=connect, schema=schema, listen=listen, whole=True)
        self._source = f"urn:workledger:{schema}"
        self._sender = sender or Sender()
        self._me = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self._connection: Connection | None = None
        self._renew_at_s = float("-inf")

    def step(self) -> int:
        """Deliver what is due and give how many events are done with; 0 when there is nothing to do now.

        Raises `NotFound` when the webhook was removed, `Unavailable` when PostgreSQL is away.
        """
        connection = self._live()
        endpoint = endpoints.get(connection, self.name)
        if endpoint.disabled_reason is not None or (endpoint.next_attempt_in_s or 0) > 0:
            return 0
        if not self._has_taken(connection):
            return 0
        return self._deliver(connection, endpoint, self._tail.read(after=endpoint.position, limit=_PAGE))

    def wait(self, timeout_s: float) -> None:
        """Wait until the log has grown, at most so long."""
        self._tail.wait(timeout_s)

    def reset(self) -> None:
        """Drop the connections, which a lost server may have left in the middle of something; `step` opens others."""
        connection, self._connection = self._connection, None
        self._renew_at_s = float("-inf")
        self._tail.close()
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Leave the webhook to others, and close the connections."""
        if self._connection is not None:
            with suppress(Unavailable):
                endpoints.leave(self._connection, self.name, by=self._me)
        self.reset()

    def _deliver(self, connection: Connection, endpoint: Endpoint, events: Sequence[BusEvent]) -> int:
        attempts, done, skipped = endpoint.attempts, 0, 0
        for event in events:
            if not endpoint.wants(event.event_type):
                skipped = event.position
                continue
            if not self._has_taken(connection):
                return done
            webhook_id, outcome = endpoints.deliver(endpoint, event, source=self._source, sender=self._sender)
            if not outcome.is_delivered and not self._is_last(connection, endpoint, event, outcome, attempts + 1):
                return done
            if not self._move_on(connection, event, webhook_id, outcome, attempts + 1):
                return done
            done, attempts, skipped = done + 1, 0, 0
        if skipped:
            consumers.save(connection, WEBHOOK_CONSUMER + self.name, skipped)
        return done or len(events)

    def _is_last(
        self, connection: Connection, endpoint: Endpoint, event: BusEvent, outcome: Outcome, attempt: int
    ) -> bool:
        """Deal with a delivery that failed; say whether that was the last try of this event."""
        if outcome.is_gone:
            logger.error("webhook.disabled name=%s position=%d reason=%s", self.name, event.position, outcome.reason)
            endpoints.disable(connection, self.name, reason=outcome.reason)
            return False
        most = min(endpoint.max_attempts, _REFUSALS) if outcome.is_refused else endpoint.max_attempts
        if attempt >= most:
            return True
        if attempt == 1:
            logger.warning("webhook.failing name=%s position=%d reason=%s", self.name, event.position, outcome.reason)
        pause_s = pause_after(attempt, outcome)
        endpoints.failed(connection, self.name, by=self._me, reason=outcome.reason, again_in_s=pause_s)
        return False

    def _move_on(
        self, connection: Connection, event: BusEvent, webhook_id: str, outcome: Outcome, attempt: int
    ) -> bool:
        """Be done with an event, delivered or given up; False when another has taken the webhook meanwhile."""
        with translate_errors(), connection.transaction():
            if not endpoints.moved_on(connection, self.name, by=self._me):
                return False
            consumers.save(connection, WEBHOOK_CONSUMER + self.name, event.position)
            if not outcome.is_delivered:
                letter = DeadLetter(
                    event.position, webhook_id, event.event_type, attempt, outcome.reason, datetime.now(UTC)
                )
                endpoints.bury(connection, self.name, letter)
        if not outcome.is_delivered:
            logger.error("webhook.dead_letter name=%s position=%d reason=%s", self.name, event.position, outcome.reason)
        elif attempt > 1:
            logger.warning("webhook.recovered name=%s position=%d attempts=%d", self.name, event.position, attempt)
        return True

    def _has_taken(self, connection: Connection) -> bool:
        """Take the webhook, or go on having it."""
        if time.monotonic() < self._renew_at_s:
            return True
        if not endpoints.take(connection, self.name, by=self._me, for_s=_LEASE_S):
            self._renew_at_s = float("-inf")
            return False
        self._renew_at_s = time.monotonic() + _RENEW_S
        return True

    def _live(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection


class Couriers:
    """A courier in a thread for each webhook there is; for as long as it is there."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        schema: str,
        listen: bool = True,
        sender: Sender | None = None,
    ) -> None:
        self._connect = connect
        self._schema = schema
        self._listen = listen
        self._sender = sender
        self._stop = threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        self._connection: Connection | None = None

    def step(self) -> int:
        """Look at which webhooks there are, and start what is missing; gives how many were started."""
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        self._threads = {name: thread for name, thread in self._threads.items() if thread.is_alive()}
        wanted = {each.name for each in endpoints.listed(self._connection) if each.disabled_reason is None}
        missing = sorted(wanted - self._threads.keys())
        for name in missing:
            thread = threading.Thread(target=self._run, args=(name,), name=f"workledger-webhook-{name}", daemon=True)
            self._threads[name] = thread
            thread.start()
        return len(missing)

    def close(self, *, timeout_s: float = 15.0) -> None:
        """Have every courier finish the delivery it is at, and end."""
        self._stop.set()
        deadline_s = time.monotonic() + timeout_s
        for thread in self._threads.values():
            thread.join(max(deadline_s - time.monotonic(), 0))
        if self._connection is not None:
            self._connection.close()

    def _run(self, name: str) -> None:
        courier = Courier(name, connect=self._connect, schema=self._schema, listen=self._listen, sender=self._sender)
        failures = 0
        try:
            while not self._stop.is_set():
                try:
                    if not courier.step():
                        courier.wait(_LOOK_EVERY_S)
                    failures = 0
                except NotFound:
                    return
                except Unavailable as error:
                    if not failures:
                        logger.warning("webhook.waiting name=%s reason=%s", name, error)
                    failures += 1
                    courier.reset()
                    self._stop.wait(min(0.5 * 2.0 ** min(failures, 10), _MAX_ILL_PAUSE_S))
        finally:
            courier.close()


# -- what is asked for ------------------------------------------------------------------------------------------


def add_webhook(
    connection: Connection,
    name: str,
    url: str,
    *,
    schema: str,
    secret: str | None = None,
    event_types: Sequence[str] | None = None,
    after: int | None = None,
    allow_private: bool = False,
    max_attempts: int = 20,
) -> str:
    """Add a webhook that begins with what comes from now on, or after a position; gives its secret."""
    secret = secret or new_secret()
    head = bring_up_to_date(connection, schema=schema)
    with translate_errors(), connection.transaction():
        endpoints.add(
            connection,
            name,
            url,
            secrets=[secret],
            event_types=event_types,
            allow_private=allow_private,
            max_attempts=max_attempts,
        )
        consumers.save(connection, WEBHOOK_CONSUMER + name, head if after is None else min(after, head))
    return secret


def rotate(connection: Connection, name: str, *, secret: str | None = None) -> str:
    """Sign with a new secret as well as with the one that was newest until now; gives the new one."""
    secret = secret or new_secret()
    endpoints.set_secrets(connection, name, [secret, endpoints.get(connection, name).secrets[0]])
    return secret


def send_test(endpoint: Endpoint, *, schema: str, sender: Sender | None = None) -> Outcome:
    """Send an event of the type `webhook.test` that is in no log."""
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    line = {
        "position": 0,
        "event_id": new_id(),
        "event_type": "webhook.test",
        "entity_type": "system",
        "entity_id": endpoint.name,
        "workflow_id": None,
        "severity": "info",
        "created_at": now,
        "recorded_at": now,
        "schema_version": 1,
        "payload": {},
    }
    event = BusEvent(0, "webhook.test", orjson.dumps(line))
    return endpoints.deliver(endpoint, event, source=f"urn:workledger:{schema}", sender=sender or Sender())[1]


def redeliver(
    connection: Connection, name: str, *, schema: str, sender: Sender | None = None
) -> list[tuple[DeadLetter, Outcome]]:
    """Try the dead letters of a webhook once more, in their order; those that are taken are dead letters no more."""
    endpoint, sender = endpoints.get(connection, name), sender or Sender()
    tried: list[tuple[DeadLetter, Outcome]] = []
    after = 0
    with closing(WholeLog(connection)) as log:
        while letters := endpoints.dead_letters(connection, name, after=after):
            for letter in letters:
                event = BusEvent(*log.read(after=letter.position - 1, limit=1)[0])
                outcome = endpoints.deliver(endpoint, event, source=f"urn:workledger:{schema}", sender=sender)[1]
                if outcome.is_delivered:
                    endpoints.unbury(connection, name, letter.position)
                tried.append((letter, outcome))
            after = letters[-1].position
    return tried
