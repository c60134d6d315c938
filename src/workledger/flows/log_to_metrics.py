"""The arrow from the log to the metrics: the consumer `metrics`.

Counts and cursor are written by one transaction, so every event is counted once, whatever is killed when and
however many copies run. The counts are a function of the log alone: the same however it is cut into batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from workledger.errors import StoreCorrupted
from workledger.flows.mount import mounted, mounted_if_behind
from workledger.log import consumers, reader
from workledger.metrics import store
from workledger.metrics.tally import EXACT, Fact, Tally
from workledger.postgres.connection import Connection, translate_errors

__all__ = [
    "CONSUMER",
    "MetricFinding",
    "MetricsReport",
    "catch_up",
    "catch_up_with_archive",
    "recompute",
    "verify_metrics",
]

CONSUMER: Final = "metrics"
BATCH: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricFinding:
    """One number that is not what the log adds up to; `shown` or `expected` is None where there is no such series."""

    series: str
    shown: str | None
    expected: str | None

    def __str__(self) -> str:
        return f"{self.series} is {self.shown}; the log adds up to {self.expected}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsReport:
    """What `verify_metrics` looked at, and what it found."""

    position: int
    lag: int
    numbers: int
    findings: tuple[MetricFinding, ...]


def catch_up(connection: Connection, *, batch: int = BATCH, limit: int | None = None) -> int:
    """Count the sequenced events after the cursor, at most `limit` of them, and return how many.

    Positions are given by `log.sequencer.sequence`, which the caller runs before. Copies queue on the cursor.
    """
    total = 0
    while limit is None or total < limit:
        done = _count_batch(connection, batch if limit is None else min(batch, limit - total))
        total += done
        if not done:
            break
    return total


def catch_up_with_archive(connection: Connection) -> int:
    """Count the archived events after the cursor, for metrics that begin anew, and return how many events were counted.

    Everything else is counted by `catch_up`.
    """
    with mounted_if_behind(connection, consumers.position_of(connection, CONSUMER), with_state=True) as last:
        return catch_up(connection) if last else 0


def _count_batch(connection: Connection, limit: int) -> int:
    # Whoever polls an idle log only reads; the lock is taken when there is something to count.
    if reader.head(connection)[0] <= consumers.position_of(connection, CONSUMER):
        return 0
    with translate_errors(), connection.transaction():
        after = store.lock_cursor(connection, CONSUMER) or 0
        upto = min(after + limit, reader.head(connection)[0])
        if upto <= after:
            return 0
        store.pin_plans(connection)
        tally = Tally(admitted=store.admitted(connection))
        known = tuple(tally.admitted.positions)
        tally.add(_complete_facts(connection, after=after, upto=upto))
        store.add(connection, tally, known=known)
        consumers.save(connection, CONSUMER, upto)
        return upto - after


def recompute(connection: Connection, *, batch: int = BATCH) -> int:
    """Make all counts again from the whole log, in one transaction, and return its head.

    Whoever scrapes sees the old counts until the commit.
    """
    with mounted(connection), translate_errors(), connection.transaction():
        store.lock_cursor(connection, CONSUMER)
        head = reader.head(connection)[0]
        store.pin_plans(connection)
        tally = _tally(connection, upto=head, batch=batch)
        store.remove_all(connection)
        store.add(connection, tally)
        consumers.save(connection, CONSUMER, head)
        return head


def verify_metrics(connection: Connection, *, batch: int = BATCH) -> MetricsReport:
    """Count the events up to the cursor again and compare every number with the one that is shown.

    Reads one snapshot, so that counting goes on meanwhile; what lies between cursor and head is lag, not a fault.
    """
    with translate_errors(), connection.transaction():
        store.take_snapshot(connection)
        position = consumers.position_of(connection, CONSUMER)
        store.pin_plans(connection)
        shown = store.read_all(connection)
        expected = _tally(connection, upto=position, batch=batch)
        findings = tuple(_compare(_numbers(shown), _numbers(expected)))
        lag = reader.head(connection)[0] - position
        return MetricsReport(position=position, lag=lag, numbers=len(_numbers(expected)), findings=findings)


def _tally(connection: Connection, *, upto: int, batch: int) -> Tally:
    tally = Tally()
    for after in range(0, upto, batch):
        tally.add(_complete_facts(connection, after=after, upto=min(after + batch, upto)))
    return tally


def _complete_facts(connection: Connection, *, after: int, upto: int) -> list[Fact]:
    """The facts of a stretch of the log, all of it: a number that left events out would be believed."""
    facts = store.facts(connection, after=after, upto=upto)
    found = sum(fact.events for fact in facts)
    if found != upto - after:
        raise StoreCorrupted(
            f"positions {after + 1} to {upto} of the log hold {found} events instead of {upto - after}; "
            "`workledger verify` says what is wrong",
            location=f"event_positions {after + 1}..{upto}",
        )
    return facts


def _numbers(tally: Tally) -> dict[str, str]:
    """Every number under a readable name."""
    numbers = {f"{key.name}{list(key.labels)}": f"{_plain(value)}" for key, value in tally.counters.items()}
    numbers |= {
        f"{key.name}{list(key.labels)} of {key.hour.isoformat()}": f"{_plain(value)}"
        for key, value in tally.hours.items()
    }
    for key, bucket in tally.buckets.items():
        name = f"{key.name}{list(key.labels)} up to {key.upper_bound:g} s"
        numbers[name] = f"{bucket.observations} ({_plain(bucket.total)} s)"
    for (domain, value), position in tally.admitted.positions.items():
        numbers[f"first position of {domain} label {value!r}"] = str(position)
    return numbers


def _plain(value: Decimal) -> str:
    return f"{value.normalize(EXACT):f}"


def _compare(shown: dict[str, str], expected: dict[str, str]) -> list[MetricFinding]:
    names = sorted(shown.keys() | expected.keys())
    pairs = ((name, shown.get(name), expected.get(name)) for name in names)
    return [MetricFinding(series=name, shown=a, expected=b) for name, a, b in pairs if a != b]
