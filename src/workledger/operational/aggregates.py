"""What many runs add up to: how often they succeed, how long they take, what their model calls used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, LiteralString

import psycopg

from workledger.model.jsonvalue import unescape_text
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = [
    "ModelUsage",
    "Statistics",
    "UsageTotal",
    "conversation_usage",
    "execution_statistics",
    "workflow_statistics",
    "workflow_usage",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """How a group of runs ended and how long they took. `name` and `day` are None where they were not asked for.

    `total` also has those that have not ended. Percentiles are interpolated, over those whose duration was recorded;
    None without any.
    """

    name: str | None
    day: datetime | None
    total: int
    completed: int
    failed: int
    cancelled: int
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    slowest_ms: float | None

    @property
    def success_rate(self) -> float | None:
        """Completed, of those that completed or failed; None when none did. Cancelled ones are no failures."""
        judged = self.completed + self.failed
        return self.completed / judged if judged else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUsage:
    """What the calls of one model used. `cost_usd` is of those whose cost is known; the rest are counted."""

    model: str | None
    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    calls_without_cost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageTotal:
    """What model calls used, by model (the dearest first) and together."""

    by_model: tuple[ModelUsage, ...]

    @property
    def calls(self) -> int:
        """How many calls reported anything."""
        return sum(usage.calls for usage in self.by_model)

    @property
    def input_tokens(self) -> int:
        """Tokens given to models."""
        return sum(usage.input_tokens for usage in self.by_model)

    @property
    def output_tokens(self) -> int:
        """Tokens returned by models."""
        return sum(usage.output_tokens for usage in self.by_model)

    @property
    def cost_usd(self) -> Decimal:
        """US dollars, of the calls whose cost is known."""
        return sum((usage.cost_usd for usage in self.by_model), Decimal(0))

    @property
    def calls_without_cost(self) -> int:
        """Calls whose cost is not known: neither given, nor their model in the price table."""
        return sum(usage.calls_without_cost for usage in self.by_model)


def workflow_statistics(
    connection: Connection,
    *,
    since: datetime,
    until: datetime,
    name: str | None = None,
    by_name: bool = False,
    by_day: bool = False,
) -> list[Statistics]:
    """Workflows that began in a time, together or by name and by day (UTC)."""
    return _statistics(connection, "workflow_statistics", (since, until, name, by_name, by_day))


def execution_statistics(
    connection: Connection,
    *,
    since: datetime,
    until: datetime,
    task_name: str | None = None,
    by_name: bool = False,
    by_day: bool = False,
) -> list[Statistics]:
    """Executions that ended in a time, together or by task and by day (UTC)."""
    return _statistics(connection, "execution_statistics", (since, until, task_name, by_name, by_day))


def workflow_usage(connection: Connection, workflow_id: str, *, with_children: bool = False) -> UsageTotal:
    """What a workflow's model calls used; `with_children` adds those of the workflows it started, at any depth."""
    return _usage(_fetch(connection, "usage_of_workflow", (workflow_id, with_children)))


def conversation_usage(connection: Connection, conversation_id: str) -> UsageTotal:
    """What the model calls of a conversation used, whatever their branch, removed messages included."""
    return _usage(_fetch(connection, "usage_of_conversation", (conversation_id,)))


def _statistics(connection: Connection, name: LiteralString, parameters: tuple[Any, ...]) -> list[Statistics]:
    return [_group(*row) for row in _fetch(connection, name, parameters)]


def _group(name: str | None, day: datetime | None, *counts_and_times: Any) -> Statistics:
    total, completed, failed, cancelled, percentiles, slowest = counts_and_times
    p50, p90, p95, p99 = percentiles or (None,) * 4
    return Statistics(
        name=name,
        day=day,
        total=total,
        completed=completed,
        failed=failed,
        cancelled=cancelled,
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        slowest_ms=slowest,
    )


def _usage(rows: Iterable[tuple[Any, ...]]) -> UsageTotal:
    return UsageTotal(
        by_model=tuple(
            ModelUsage(
                model=None if model is None else unescape_text(model),
                calls=calls,
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                cost_usd=cost_usd,
                calls_without_cost=calls_without_cost,
            )
            for model, calls, input_tokens, output_tokens, cost_usd, calls_without_cost in rows
        )
    )


def _fetch(connection: Connection, name: LiteralString, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", name), parameters)
        return cursor.fetchall()
