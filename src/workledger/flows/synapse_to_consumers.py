"""The arrow from Synapse to other people's programs: a consumer of a group, with the log behind the stream."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from workledger.errors import ConfigurationError
from workledger.flows.log_to_synapse import bring_up_to_date
from workledger.flows.whole_log import WholeLog
from workledger.log import consumers
from workledger.postgres.archive_access import give_access
from workledger.postgres.connection import Connection, connect
from workledger.settings import Settings, load_settings
from workledger.synapse.bus import BusEvent
from workledger.synapse.subscribe import Subscription
from workledger.training.archive_access import FileAccess
from workledger.training.archive_files import archive_root

__all__ = ["GROUP_CONSUMER", "LogBehind", "subscribe"]

#: Groups keep their progress under this prefix in the table of consumers.
GROUP_CONSUMER = "group:"


def subscribe(
    group: str,
    *,
    settings: Settings | None = None,
    consumer: str | None = None,
    event_types: Collection[str] | None = None,
    begin_after: int | None = None,
    claim_after_s: float = 30.0,
    max_attempts: int = 5,
) -> Subscription:
    """Become a consumer of a group that follows the log over Redis Streams: each event to one consumer, at least once.

    A new group begins with what comes from now on, or after position `begin_after` (0: with the whole log). What a
    consumer was given and has not dealt with for `claim_after_s` goes to another: longer than any event takes. With the
    error of the `max_attempts`-th try an event goes to the stream of dead letters. Settings come from the environment
    unless they are given; Redis and PostgreSQL have to be named in them.

    >>> with subscribe("billing", event_types={"task.completed"}) as subscription:
    ...     subscription.run(lambda delivery: print(delivery.position, delivery.event["payload"]))
    """
    settings = settings or load_settings()
    if not settings.synapse_url.startswith(("redis", "unix")) or not settings.database_url:
        raise ConfigurationError(
            "a consumer needs WORKLEDGER_SYNAPSE_URL=redis://… (or unix:/…) for the stream and WORKLEDGER_DATABASE_URL "
            "for what the stream has lost",
            setting="WORKLEDGER_SYNAPSE_URL",
            value=settings.synapse_url,
        )
    return Subscription(
        settings.synapse_url,
        backing=LogBehind(partial(_open, settings), group=group, schema=settings.project),
        group=group,
        project=settings.project,
        consumer=consumer,
        event_types=event_types,
        begin_after=begin_after,
        claim_after_s=claim_after_s,
        max_attempts=max_attempts,
    )


def _open(settings: Settings) -> Connection:
    connection = connect(settings.database_url, schema=settings.project, prepared=not settings.pooled)
    give_access(connection, FileAccess(lambda: settings.archive_url or archive_root(settings.training_url)))
    return connection


class LogBehind:
    """The log and a group's cursor in it (`synapse.subscribe.Backing`). Opens its connection when asked."""

    _lines: WholeLog

    def __init__(self, connect: Callable[[], Connection], *, group: str, schema: str) -> None:
        self._connect = connect
        self._name = f"{GROUP_CONSUMER}{group}"
        self._schema = schema
        self._connection: Connection | None = None

    def head(self) -> int:
        """Give the last position of the log."""
        return bring_up_to_date(self._live(), schema=self._schema)

    def events(self, *, after: int, limit: int) -> list[BusEvent]:
        """Give the events after a position."""
        self._live()
        return [BusEvent(*line) for line in self._lines.read(after=after, limit=limit)]

    def progress(self) -> int | None:
        """Give the group's cursor; None when the group never was."""
        known = {consumer.name: consumer.position for consumer in consumers.consumers(self._live())}
        return known.get(self._name)

    def keep(self, position: int) -> None:
        """Move the group's cursor forward."""
        consumers.save(self._live(), self._name, position)

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _live(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
            self._lines = WholeLog(self._connection)
        return self._connection
