"""Executions on a timeline: a row for each attempt, nested as they were called, its bar as inline SVG.

Bars stand at percentages of the row, so the drawing follows the width of the page while its text does not stretch.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from markupsafe import Markup

from workledger.model.status import Status
from workledger.server.text import duration
from workledger.server.views import ExecutionView, WorkflowDetail

__all__ = ["Row", "Timeline", "timeline"]

#: Rows are indented no further than this.
MAX_DEPTH: Final = 10
#: A bar is never narrower than this part of the row.
MIN_WIDTH: Final = 0.35

_TICKS: Final = 5
_STEPS: Final = (1, 2, 5, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One attempt: its place in the tree, its bar, and where it begins on the timeline."""

    execution: ExecutionView
    depth: int
    is_retry: bool
    offset_ms: float
    duration_ms: float
    svg: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tick:
    """A mark of the axis: where, in per cent, and what it says."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The rows in order, the axis above them, and what they come to."""

    rows: tuple[Row, ...]
    axis: Markup
    kinds: dict[str, int]
    failed: int
    retries: int
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal


def timeline(detail: WorkflowDetail) -> Timeline:
    """The timeline of a workflow's executions, from the first beginning to the last end (or to now)."""
    executions = detail.executions.items
    begins, ends = _bounds(detail)
    span_ms = max(_ms(ends - begins), 0.001)
    ticks = _ticks(span_ms)
    rows = tuple(
        _row(item, depth, begins=begins, span_ms=span_ms, now=detail.now, ticks=ticks)
        for item, depth in _in_tree_order(executions)
    )
    return Timeline(
        rows=rows,
        axis=_axis(ticks),
        kinds=dict(Counter(item.kind for item in executions)),
        failed=sum(item.status == Status.FAILED for item in executions),
        retries=sum(row.is_retry for row in rows),
        input_tokens=sum(item.input_tokens or 0 for item in executions),
        output_tokens=sum(item.output_tokens or 0 for item in executions),
        cost_usd=sum((item.cost_usd or Decimal() for item in executions), Decimal()),
    )


def _bounds(detail: WorkflowDetail) -> tuple[datetime, datetime]:
    executions = detail.executions.items
    whole = detail.workflow
    # A later page shows its own stretch of time; the first one begins with the workflow.
    begins = [item.started_at or item.created_at for item in executions] or [whole.started_at or whole.created_at]
    if len(executions) == detail.executions.total:
        begins.append(whole.started_at or whole.created_at)
    ends = [_end(item, now=detail.now) for item in executions] or [whole.completed_at or detail.now]
    if len(executions) == detail.executions.total and whole.completed_at is not None:
        ends.append(whole.completed_at)
    return min(begins), max(ends)


def _end(item: ExecutionView, *, now: datetime) -> datetime:
    if item.duration_ms is not None:
        return (item.started_at or item.created_at) + timedelta(milliseconds=item.duration_ms)
    return item.completed_at or max(now, item.started_at or item.created_at)


def _in_tree_order(executions: Sequence[ExecutionView]) -> Iterator[tuple[ExecutionView, int]]:
    """Each attempt below its parent, siblings in the order they began; whatever has no parent here is a root."""
    known = {item.execution_id for item in executions}
    children: dict[str | None, list[ExecutionView]] = defaultdict(list)
    for item in executions:
        children[item.parent_execution_id if item.parent_execution_id in known else None].append(item)
    seen: set[str] = set()
    stack = [(item, 0) for item in reversed(children[None])]
    while stack:
        item, depth = stack.pop()
        seen.add(item.execution_id)
        yield item, depth
        stack += [
            (child, depth + 1) for child in reversed(children[item.execution_id]) if child.execution_id not in seen
        ]
    # Parents that point at each other are nobody's children; they are shown all the same.
    yield from ((item, 0) for item in executions if item.execution_id not in seen)


def _row(
    item: ExecutionView, depth: int, *, begins: datetime, span_ms: float, now: datetime, ticks: Sequence[_Tick]
) -> Row:
    started = item.started_at or item.created_at
    offset_ms = max(_ms(started - begins), 0.0)
    duration_ms = max(_ms(_end(item, now=now) - started), 0.0)
    return Row(
        execution=item,
        depth=min(depth, MAX_DEPTH),
        is_retry=item.retry_count > 0,
        offset_ms=offset_ms,
        duration_ms=duration_ms,
        svg=_bar(item, offset_ms / span_ms * 100, duration_ms / span_ms * 100, ticks),
    )


def _bar(item: ExecutionView, start: float, width: float, ticks: Sequence[_Tick]) -> Markup:
    width = min(max(width, MIN_WIDTH), 100)
    start = min(max(start, 0), 100 - width)
    place = Markup('x="%s%%" width="%s%%"') % (f"{start:.3f}", f"{width:.3f}")
    lines = Markup("").join(
        Markup('<line class="grid" x1="{at}%" x2="{at}%" y1="0" y2="100%"/>').format(at=f"{tick.at:.3f}")
        for tick in ticks
    )
    bar = Markup('<rect class="bar kind-%s is-%s" y="8" height="12" rx="3" %s/>') % (item.kind, item.status, place)
    if item.status in {Status.FAILED, Status.CANCELLED}:
        bar += Markup('<rect fill="url(#hatch)" y="8" height="12" rx="3" %s/>') % place
    return Markup('<svg class="plot" height="28" width="100%" aria-hidden="true">') + lines + bar + Markup("</svg>")


def _axis(ticks: Sequence[_Tick]) -> Markup:
    marks = Markup("").join(
        Markup(
            '<line class="grid" x1="{at}%" x2="{at}%" y1="0" y2="100%"/><text x="{at}%" dx="4" y="14">{label}</text>'
        ).format(at=f"{tick.at:.3f}", label=tick.label)
        for tick in ticks
    )
    return Markup('<svg class="plot" height="20" width="100%" aria-hidden="true">') + marks + Markup("</svg>")


def _ticks(span_ms: float) -> tuple[_Tick, ...]:
    """Marks at round distances: 1, 2 or 5 times a power of ten, or of a minute's parts above one."""
    step = _step(span_ms / _TICKS)
    return tuple(
        _Tick(at=number * step / span_ms * 100, label=_label(number * step))
        for number in range(math.floor(span_ms / step) + 1)
        if number * step / span_ms < 0.97  # noqa: PLR2004  the last label would be cut off
    )


def _label(ms: float) -> str:
    """A round duration without the part that is nought: `2 min`, not `2 min 00 s`."""
    if ms == 0:
        return "0"
    if ms < 1000:  # noqa: PLR2004
        return f"{ms:g} ms"
    text = f"{ms / 1000:g} s" if ms < 60_000 else duration(ms)  # noqa: PLR2004
    return text.removesuffix(" 00 s").removesuffix(" 00 min").removesuffix(" 00 h")


_LONG_STEPS_MS: Final = tuple(1000 * s for s in (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200))


def _step(wanted_ms: float) -> float:
    if wanted_ms > 10_000:  # noqa: PLR2004
        days_ms = 86_400_000
        return next((step for step in _LONG_STEPS_MS if step >= wanted_ms), math.ceil(wanted_ms / days_ms) * days_ms)
    power = 10 ** math.floor(math.log10(wanted_ms))
    return next(step * power for step in _STEPS if step * power >= wanted_ms * 0.999)


def _ms(delta: timedelta) -> float:
    return delta.total_seconds() * 1000
