"""The metrics as points of a time series database: InfluxDB's line protocol.

One point for every event, and one more, with its numbers, for every finished workflow, finished task execution,
message and feedback. Ids are neither tags nor fields; `position` leads back to the event and from it to everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import msgspec

from workledger.metrics.instruments import EVENTS, FAILURES, FEEDBACK, MESSAGES, TASK_EXECUTIONS, TOKENS, WORKFLOWS
from workledger.metrics.tally import Admitted

__all__ = ["Fields", "Happening", "Tags", "lines_of", "point", "timestamp_ns"]

Tags = tuple[tuple[str, str], ...]
Fields = Iterable[tuple[str, int | float | None]]

_SLOTS_PER_MS = 1_000_000


class Happening(msgspec.Struct, frozen=True):
    """A row of queries/points.sql: an event with its numbers."""

    position: int
    event_type: str
    severity: str
    at_ms: int
    name: str | None
    kind: str | None
    role: str | None
    error_type: str | None
    model: str | None
    seconds: float | None
    retry_count: int | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    score: float | None

    @property
    def fields(self) -> Fields:
        """The numbers, by the names of their fields."""
        return (
            ("position", self.position),
            ("duration_seconds", self.seconds),
            ("retry_count", self.retry_count),
            ("input_tokens", self.input_tokens),
            ("output_tokens", self.output_tokens),
            ("cost_usd", self.cost_usd),
            ("score", self.score),
        )


def timestamp_ns(at_ms: int, position: int) -> int:
    """The time of an event's points: its millisecond, and within it a place of its own.

    Points of one series at one time replace each other. That makes writing again harmless, and would lose one of
    two events that share a clock reading, as imported ones do; so the digits below the millisecond come from the
    position. They are the same at every rewrite, and differ for a million neighbours in the log.
    """
    return at_ms * _SLOTS_PER_MS + position % _SLOTS_PER_MS


def lines_of(happening: Happening, admitted: Admitted) -> Iterator[str]:
    """The points of an event; the label values are those that the counters admit."""
    at_ns = timestamp_ns(happening.at_ms, happening.position)
    event_type = admitted.look_up(EVENTS.labels[0], happening.event_type)
    tags = (("event_type", event_type), ("severity", happening.severity))
    yield point("workledger_event", tags, (("position", happening.position),), at_ns)
    match happening.event_type.split("."):
        case ["workflow", "completed" | "failed" | "cancelled" as status]:
            tags = (("name", admitted.look_up(WORKFLOWS.labels[0], happening.name)), ("status", status))
            tags += _error(happening, admitted, status)
            yield point("workledger_workflow", tags, happening.fields, at_ns)
        case ["task", "completed" | "failed" | "cancelled" as status]:
            task_name = admitted.look_up(TASK_EXECUTIONS.labels[1], happening.name)
            tags = (("kind", happening.kind or ""), ("task_name", task_name), ("status", status))
            tags += _error(happening, admitted, status) + _model(happening, admitted)
            yield point("workledger_task", tags, happening.fields, at_ns)
        case ["message", "added"]:
            tags = (("role", admitted.look_up(MESSAGES.labels[0], happening.role)), *_model(happening, admitted))
            yield point("workledger_message", tags, happening.fields, at_ns)
        case ["feedback", "recorded"]:
            tags = (("name", admitted.look_up(FEEDBACK.labels[0], happening.name)),)
            yield point("workledger_feedback", tags, happening.fields, at_ns)
        case _:
            pass


def _error(happening: Happening, admitted: Admitted, status: str) -> Tags:
    if status != "failed":
        return ()
    return (("error_type", admitted.look_up(FAILURES.labels[1], happening.error_type)),)


def _model(happening: Happening, admitted: Admitted) -> Tags:
    return (("model", admitted.look_up(TOKENS.labels[2], happening.model)),) if happening.model else ()


def point(measurement: str, tags: Tags, fields: Fields, at_ns: int) -> str:
    """One line of line protocol (InfluxDB 1.8 documentation, "Line protocol"), without the line's end.

    Fields that are None are left out; at least one must not be.
    """
    written = ",".join(f"{name}={_number(value)}" for name, value in fields if value is not None)
    return f"{_series(measurement, tags)} {written} {at_ns}"


@lru_cache(maxsize=10_000)
def _series(measurement: str, tags: Tags) -> str:
    return "".join([measurement, *(f",{name}={_tag_value(value)}" for name, value in tags if value)])


def _number(value: float) -> str:
    return f"{value}i" if isinstance(value, int) else repr(value)


_ESCAPES = str.maketrans({",": "\\,", " ": "\\ ", "=": "\\=", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def _tag_value(value: str) -> str:
    # A backslash stands for itself, except before a character that it escapes: the comma or space after the
    # value. The protocol has no way to write one at the end, so a space (escaped in its turn) follows it.
    return (value + " " if value.endswith("\\") else value).translate(_ESCAPES)
