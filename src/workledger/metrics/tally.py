"""From what the log says to increments of the instruments: pure, exact, and the same however the log is cut."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Context, Decimal
from typing import Final, NamedTuple

import msgspec

from workledger.metrics.instruments import (
    COST,
    EVENTS,
    FAILURES,
    FEEDBACK,
    MESSAGES,
    OTHER,
    TASK_DURATION,
    TASK_EXECUTIONS,
    TASK_RETRIES,
    TOKENS,
    WORKFLOW_DURATION,
    WORKFLOWS,
    Instrument,
    Label,
    printable,
)
from workledger.model.status import Status

__all__ = ["EXACT", "Admitted", "Bucket", "BucketKey", "CounterKey", "Fact", "HourKey", "Tally", "negated_bounds"]

#: Sums must not depend on the order of their terms, so nothing may be rounded: a double has at most 308 digits
#: before the point, and facts.sql leaves 15 after it.
EXACT: Final = Context(prec=1000)

_STATUS_AFTER: Final = {
    "workflow.created": Status.PENDING,
    "workflow.started": Status.RUNNING,
    "workflow.resumed": Status.RUNNING,
    "workflow.completed": Status.COMPLETED,
    "workflow.failed": Status.FAILED,
    "workflow.cancelled": Status.CANCELLED,
    "task.started": Status.RUNNING,
    "task.completed": Status.COMPLETED,
    "task.failed": Status.FAILED,
    "task.cancelled": Status.CANCELLED,
}


class Fact(msgspec.Struct, frozen=True):
    """A row of queries/facts.sql: how many events say the same, and what their numbers add up to."""

    event_type: str
    name: str | None
    kind: str | None
    is_retry: bool
    role: str | None
    error_type: str | None
    model: str | None
    hour: datetime | None
    bounds_above: int | None
    events: int
    seconds: Decimal | None
    input_tokens: Decimal | None
    output_tokens: Decimal | None
    cost_usd: Decimal | None
    first_position: int


class CounterKey(NamedTuple):
    """A series of a counter."""

    name: str
    labels: tuple[str, ...]


class HourKey(NamedTuple):
    """A series of a counter in one hour."""

    name: str
    hour: datetime
    labels: tuple[str, ...]


class BucketKey(NamedTuple):
    """A bucket of a series of a histogram; the last one of a series has the upper bound infinity."""

    name: str
    labels: tuple[str, ...]
    upper_bound: float


class Bucket(NamedTuple):
    """What fell into a bucket, not counting the buckets below it."""

    observations: int
    total: Decimal


class Admitted:
    """The values of open labels that have series of their own: in each domain the first ones of the log."""

    def __init__(self, known: Iterable[tuple[str, str, int]] = ()) -> None:
        self.positions: dict[tuple[str, str], int] = {}
        self._sizes: dict[str, int] = {}
        for domain, value, position in known:
            self._add(domain, value, position)

    def _add(self, domain: str, value: str, position: int) -> None:
        self.positions[domain, value] = position
        self._sizes[domain] = self._sizes.get(domain, 0) + 1

    def value(self, label: Label, raw: str | None, position: int) -> str:
        """The label value for a recorded text, which first appears at `position`; ask in the order of the log."""
        text = printable(raw)
        if text in label.always or (label.domain, text) in self.positions:
            return text
        if self._sizes.get(label.domain, 0) >= label.bound:
            return OTHER
        self._add(label.domain, text, position)
        return text

    def look_up(self, label: Label, raw: str | None) -> str:
        """The label value for a recorded text; one that was never admitted is `other`."""
        text = printable(raw)
        return text if text in label.always or (label.domain, text) in self.positions else OTHER


@dataclass(slots=True)
class Tally:
    """What a stretch of the log adds to every series."""

    admitted: Admitted = field(default_factory=Admitted)
    counters: dict[CounterKey, Decimal] = field(default_factory=dict[CounterKey, Decimal])
    hours: dict[HourKey, Decimal] = field(default_factory=dict[HourKey, Decimal])
    buckets: dict[BucketKey, Bucket] = field(default_factory=dict[BucketKey, Bucket])

    def add(self, facts: Iterable[Fact]) -> None:
        """Add facts, which come in the order of the log."""
        for fact in facts:
            self._count(EVENTS, fact, (fact.event_type,), fact.events)
            match fact.event_type.partition(".")[0]:
                case "workflow":
                    self._workflow(fact)
                case "task":
                    self._task(fact)
                case "message":
                    self._message(fact)
                case "feedback" if fact.event_type == "feedback.recorded":
                    self._count(FEEDBACK, fact, (fact.name,), fact.events)
                case _:
                    pass

    def _workflow(self, fact: Fact) -> None:
        status = _STATUS_AFTER.get(fact.event_type)
        if status is None:
            return
        self._count(WORKFLOWS, fact, (fact.name, status), fact.events)
        self._observe(WORKFLOW_DURATION, fact, (fact.name,))
        if status is Status.FAILED:
            self._count(FAILURES, fact, ("workflow", fact.error_type), fact.events)

    def _task(self, fact: Fact) -> None:
        status = _STATUS_AFTER.get(fact.event_type)
        if status is None:
            return
        self._count(TASK_EXECUTIONS, fact, (fact.kind, fact.name, status), fact.events)
        self._observe(TASK_DURATION, fact, (fact.kind, fact.name))
        if fact.is_retry:
            self._count(TASK_RETRIES, fact, (fact.kind, fact.name), fact.events)
        if status is Status.FAILED:
            self._count(FAILURES, fact, ("task", fact.error_type), fact.events)
        self._usage(fact, recorded_on="execution")

    def _message(self, fact: Fact) -> None:
        if fact.event_type == "message.added":
            self._count(MESSAGES, fact, (fact.role,), fact.events)
            self._usage(fact, recorded_on="message")

    def _usage(self, fact: Fact, *, recorded_on: str) -> None:
        if fact.event_type == "task.started":
            return
        self._count(TOKENS, fact, (recorded_on, "input", fact.model), fact.input_tokens)
        self._count(TOKENS, fact, (recorded_on, "output", fact.model), fact.output_tokens)
        self._count(COST, fact, (recorded_on, fact.model), fact.cost_usd)

    def _count(
        self, instrument: Instrument, fact: Fact, values: tuple[str | None, ...], amount: int | Decimal | None
    ) -> None:
        if amount is None:
            return
        labels = self._labels(instrument, fact, values)
        key = CounterKey(instrument.name, labels)
        self.counters[key] = EXACT.add(self.counters.get(key, 0), amount)
        if instrument.hourly and fact.hour is not None:
            hour = HourKey(instrument.name, fact.hour, labels)
            self.hours[hour] = EXACT.add(self.hours.get(hour, 0), amount)

    def _observe(self, instrument: Instrument, fact: Fact, values: tuple[str | None, ...]) -> None:
        if fact.bounds_above is None or fact.seconds is None:
            return
        labels = self._labels(instrument, fact, values)
        key = BucketKey(instrument.name, labels, _upper_bound(instrument, fact.bounds_above))
        observations, total = self.buckets.get(key, (0, Decimal(0)))
        self.buckets[key] = Bucket(observations + fact.events, EXACT.add(total, fact.seconds))

    def _labels(self, instrument: Instrument, fact: Fact, values: tuple[str | None, ...]) -> tuple[str, ...]:
        return tuple(
            str(value) if label.values and value in label.values
            else self.admitted.value(label, value, fact.first_position)
            for label, value in zip(instrument.labels, values, strict=True)
        )  # fmt: skip


def negated_bounds(instrument: Instrument) -> list[Decimal]:
    """The bounds in the form that facts.sql takes them: PostgreSQL's buckets leave their upper bound out, and
    Prometheus' take it in, so both the bounds and the durations are counted from the other side.
    """  # noqa: D205
    return [-Decimal(str(bound)) for bound in reversed(instrument.buckets)]


def _upper_bound(instrument: Instrument, bounds_above: int) -> float:
    return float(instrument.buckets[-bounds_above]) if bounds_above else float("inf")
