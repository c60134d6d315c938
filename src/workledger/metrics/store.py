"""The tables of the metrics: locked, read, added to, and replaced, all in the transaction at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec
import orjson
import psycopg

from workledger.metrics.instruments import TASK_DURATION, WORKFLOW_DURATION
from workledger.metrics.points import Happening
from workledger.metrics.tally import Admitted, Bucket, BucketKey, CounterKey, Fact, HourKey, Tally, negated_bounds
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = [
    "TaskRate",
    "add",
    "admitted",
    "facts",
    "happenings",
    "lock_cursor",
    "pin_plans",
    "read_all",
    "remove_all",
    "scrape",
    "take_snapshot",
    "task_rates",
]


class TaskRate(msgspec.Struct, frozen=True, kw_only=True):
    """How the attempts at one task ended."""

    kind: str
    task_name: str
    completed: int
    failed: int
    cancelled: int

    @property
    def failure_rate(self) -> float:
        """Failed attempts as a share of all that ended."""
        return self.failed / max(self.completed + self.failed + self.cancelled, 1)


def lock_cursor(connection: Connection, name: str, *, wait: bool = True) -> int | None:
    """Lock a consumer's cursor until the transaction ends, and return its position.

    `wait=False` returns None when another copy of the consumer has it.
    """
    statement = "lock_cursor" if wait else "try_cursor"
    rows = _fetch(connection, statement, name)
    # Where there was none, another copy may have made it since: that one is waited for, too.
    if not rows and (wait or not _fetch(connection, "cursor_exists", name)):
        _execute(connection, "make_cursor", name)
        rows = _fetch(connection, statement, name)
    return rows[0][0] if rows else None


def take_snapshot(connection: Connection) -> None:
    """Have all statements of this transaction, of which this is the first, see one moment."""
    _execute(connection, "snapshot")


def pin_plans(connection: Connection) -> None:
    """Have the statements of this transaction read batches by key, whatever the planner knows of young tables."""
    _execute(connection, "pin_plans")


def facts(connection: Connection, *, after: int, upto: int) -> list[Fact]:
    """What the events at positions `after + 1` to `upto` say, counted."""
    bounds = negated_bounds(WORKFLOW_DURATION), negated_bounds(TASK_DURATION)
    return [Fact(*row) for row in _fetch(connection, "facts", after, upto, *bounds)]


def happenings(connection: Connection, *, after: int, upto: int) -> list[Happening]:
    """The events at positions `after + 1` to `upto` with their numbers, in order."""
    return [Happening(*row) for row in _fetch(connection, "points", after, upto)]


def admitted(connection: Connection) -> Admitted:
    """The values of open labels that have series of their own."""
    return Admitted(_fetch(connection, "label_values"))


def add(connection: Connection, tally: Tally, *, known: Iterable[tuple[str, str]] = ()) -> None:
    """Add a tally to the tables; `known` are the label values that they have already."""
    before = set(known)
    values = [
        {"domain": domain, "value": value, "first_position": position}
        for (domain, value), position in tally.admitted.positions.items()
        if (domain, value) not in before
    ]
    counters = [{"name": k.name, "labels": k.labels, "value": str(v)} for k, v in tally.counters.items()]
    hours = [{"name": k.name, "hour": k.hour, "labels": k.labels, "value": str(v)} for k, v in tally.hours.items()]
    buckets = [
        {**key._asdict(), "upper_bound": str(key.upper_bound), "observations": count, "total": str(total)}
        for key, (count, total) in tally.buckets.items()
    ]
    for statement, rows in (
        ("add_label_values", values),
        ("add_counters", counters),
        ("add_hours", hours),
        ("add_histograms", buckets),
    ):
        if rows:
            _execute(connection, statement, orjson.dumps(rows).decode())


def read_all(connection: Connection) -> Tally:
    """Everything the tables hold."""
    return Tally(
        admitted=admitted(connection),
        counters={CounterKey(n, tuple(labels)): value for n, labels, value in _fetch(connection, "counters")},
        hours={HourKey(n, hour, tuple(labels)): value for n, hour, labels, value in _fetch(connection, "hours")},
        buckets={
            BucketKey(name, tuple(labels), bound): Bucket(count, total)
            for name, labels, bound, count, total in _fetch(connection, "histograms")
        },
    )


def remove_all(connection: Connection) -> None:
    """Empty the tables, to be filled again in the same transaction."""
    _execute(connection, "remove_all")


def task_rates(connection: Connection, *, since: datetime) -> list[TaskRate]:
    """How the attempts at each task ended since the hour of `since`, the most failures first."""
    names = TaskRate.__struct_fields__
    hour = since.replace(minute=0, second=0, microsecond=0)
    return [TaskRate(**_named(names, row)) for row in _fetch(connection, "task_rates", hour)]


def scrape(connection: Connection, *, timeout_s: float) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """The stored series (name, labels, value, upper_bound, total) and the gauges of now (name, labels, value)."""
    with translate_errors(), connection.transaction():
        _execute(connection, "limit_time", str(int(timeout_s * 1000)))
        return _fetch(connection, "scrape_stored"), _fetch(connection, "scrape_now")


def _named(names: tuple[str, ...], row: tuple[Any, ...]) -> Mapping[str, Any]:
    return dict(zip(names, row, strict=True))


def _fetch(connection: Connection, name: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.metrics", name), parameters)
        return cursor.fetchall()


def _execute(connection: Connection, name: str, *parameters: Any) -> None:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.metrics", name), parameters)
