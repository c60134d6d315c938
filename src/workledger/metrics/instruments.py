"""Every instrument, declared once: its name, help, type, labels and buckets.

Names follow Prometheus: base units, `_total` for counters. A label is closed (its values are listed here) or open
(names that people give); of an open label the first `bound` distinct values in the order of the log have series of
their own, and all later ones share the value `other`. Ids are never labels.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Final, Literal

from workledger.model.jsonvalue import unescape_text
from workledger.model.status import Kind, Status

__all__ = ["ALL", "LEDGER_EVENTS", "OTHER", "SCRAPED", "STORED", "UNKNOWN", "Instrument", "Label", "printable"]

#: The value shared by the values of an open label beyond its bound.
OTHER: Final = "other"
#: The value of a label for an entity without a name.
UNKNOWN: Final = "unknown"

MAX_LABEL_CHARS: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One label: closed when `values` are given, open and bounded otherwise.

    Open labels of one `domain` share their bound and their known values; a value in `always` has a series of its
    own without counting.
    """

    name: str
    values: tuple[str, ...] = ()
    domain: str = ""
    bound: int = 0
    always: frozenset[str] = frozenset()

    @property
    def most(self) -> int:
        """The greatest number of values this label can have."""
        return len(self.values) or self.bound + len(self.always) + 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """One metric. `zeroes` shows every value of its last label for each series, so that no first failure is missed."""

    name: str
    help: str
    type: Literal["counter", "gauge", "histogram"]
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    hourly: bool = False
    zeroes: bool = False


#: Event types of the ledger's own; the application adds its own, which are open.
LEDGER_EVENTS: Final = frozenset(
    {
        "workflow.created",
        "workflow.started",
        "workflow.progressed",
        "workflow.cancel_requested",
        "workflow.completed",
        "workflow.failed",
        "workflow.cancelled",
        "workflow.resumed",
        "workflow.archived",
        "task.started",
        "task.completed",
        "task.failed",
        "task.cancelled",
        "definition.registered",
        "conversation.started",
        "message.added",
        "message.removed",
        "feedback.recorded",
        "log.archived",
        "worker.started",
        "worker.stopped",
        "worker.lost",
    }
)

_NAME = Label(name="name", domain="workflow", bound=100)
_TASK_NAME = Label(name="task_name", domain="task", bound=200)
_KIND = Label(name="kind", values=tuple(Kind))
_MODEL = Label(name="model", domain="model", bound=50)
_ENTITY = Label(name="entity", values=("workflow", "task"))
_RECORDED_ON = Label(name="recorded_on", values=("execution", "message"))
_OPEN_STATUS = Label(name="status", values=(Status.PENDING, Status.RUNNING))
_CONSUMER = Label(name="consumer", domain="consumer", bound=100)

WORKFLOWS: Final = Instrument(
    name="workledger_workflows_total",
    help="Workflows that came into a status; a resumed one comes into running again.",
    type="counter",
    labels=(_NAME, Label(name="status", values=tuple(Status))),
    hourly=True,
    zeroes=True,
)
WORKFLOW_DURATION: Final = Instrument(
    name="workledger_workflow_duration_seconds",
    help="Time from start to end of finished workflows whose duration was recorded.",
    type="histogram",
    labels=(_NAME,),
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400, 86400),
)
TASK_EXECUTIONS: Final = Instrument(
    name="workledger_task_executions_total",
    help="Task executions (attempts) that came into a status.",
    type="counter",
    labels=(_KIND, _TASK_NAME, Label(name="status", values=tuple(Status)[1:])),
    hourly=True,
    zeroes=True,
)
TASK_DURATION: Final = Instrument(
    name="workledger_task_duration_seconds",
    help="Time from start to end of finished task executions whose duration was recorded.",
    type="histogram",
    labels=(_KIND, _TASK_NAME),
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600),
)
TASK_RETRIES: Final = Instrument(
    name="workledger_task_retries_total",
    help="Task executions that were started as a retry of an earlier attempt.",
    type="counter",
    labels=(_KIND, _TASK_NAME),
)
FAILURES: Final = Instrument(
    name="workledger_failures_total",
    help="Failed workflows and task executions by the type of their error.",
    type="counter",
    labels=(_ENTITY, Label(name="error_type", domain="error_type", bound=100)),
)
MESSAGES: Final = Instrument(
    name="workledger_messages_total",
    help="Messages added to conversations.",
    type="counter",
    labels=(Label(name="role", domain="role", bound=20),),
)
FEEDBACK: Final = Instrument(
    name="workledger_feedback_total",
    help="Feedback recorded.",
    type="counter",
    labels=(Label(name="name", domain="feedback", bound=50),),
)
TOKENS: Final = Instrument(
    name="workledger_tokens_total",
    help="Tokens that finished executions and messages report; a call that is reported on both counts on both.",
    type="counter",
    labels=(_RECORDED_ON, Label(name="direction", values=("input", "output")), _MODEL),
)
COST: Final = Instrument(
    name="workledger_cost_usd_total",
    help="Cost in US dollars that finished executions and messages report.",
    type="counter",
    labels=(_RECORDED_ON, _MODEL),
)
EVENTS: Final = Instrument(
    name="workledger_events_total",
    help="Events in the log.",
    type="counter",
    labels=(Label(name="event_type", domain="event_type", bound=100, always=LEDGER_EVENTS),),
)

#: What the consumer of the log keeps in tables.
STORED: Final = (
    WORKFLOWS,
    WORKFLOW_DURATION,
    TASK_EXECUTIONS,
    TASK_DURATION,
    TASK_RETRIES,
    FAILURES,
    MESSAGES,
    FEEDBACK,
    TOKENS,
    COST,
    EVENTS,
)

UP: Final = Instrument(name="workledger_up", help="1 when PostgreSQL answered this scrape, else 0.", type="gauge")
BUILD_INFO: Final = Instrument(
    name="workledger_build_info",
    help="Always 1; the label is the version of Workledger.",
    type="gauge",
    labels=(Label(name="version", domain="version", bound=1),),
)

#: What is read when somebody looks; each has its rows in queries/scrape_now.sql.
SCRAPED: Final = (
    Instrument(
        name="workledger_workflows_open",
        help="Workflows that are pending or running now.",
        type="gauge",
        labels=(_OPEN_STATUS,),
    ),
    Instrument(
        name="workledger_task_executions_open",
        help="Task executions that are pending or running now.",
        type="gauge",
        labels=(_OPEN_STATUS,),
    ),
    Instrument(
        name="workledger_oldest_running_age_seconds",
        help="Time since the start of the oldest workflow and task execution that run now; 0 when none runs.",
        type="gauge",
        labels=(_ENTITY,),
    ),
    Instrument(
        name="workledger_workers",
        help="Recording processes: alive, overdue (lease passed, not declared lost yet) or lost in the last hour.",
        type="gauge",
        labels=(Label(name="state", values=("alive", "overdue", "lost")),),
    ),
    Instrument(
        name="workledger_log_head_position", help="The last position given to an event of the log.", type="gauge"
    ),
    Instrument(
        name="workledger_log_unsequenced_events", help="Committed events that wait for their position.", type="gauge"
    ),
    Instrument(
        name="workledger_oldest_unarchived_event_age_seconds",
        help="Age of the oldest event that is in the database and not archived; 0 when there is none.",
        type="gauge",
    ),
    Instrument(
        name="workledger_consumer_position",
        help="The last position that a consumer of the log has dealt with.",
        type="gauge",
        labels=(_CONSUMER,),
    ),
    Instrument(
        name="workledger_consumer_lag_positions",
        help="Positions by which a consumer is behind the head of the log.",
        type="gauge",
        labels=(_CONSUMER,),
    ),
    Instrument(
        name="workledger_training_lag_positions",
        help="Positions by which a training store is behind the head of the log.",
        type="gauge",
        labels=(Label(name="store", domain="store", bound=100),),
    ),
)

ALL: Final = (*STORED, *SCRAPED, UP, BUILD_INFO)


def printable(value: str | None) -> str:
    """Return a recorded text as a label value: short, and without what a text format cannot carry."""
    if not value:
        return UNKNOWN
    text = unescape_text(value)
    if not text.isascii() or not text.isprintable():
        text = "".join("\ufffd" if unicodedata.category(char) in {"Cc", "Cs"} else char for char in text)
    return text[:MAX_LABEL_CHARS]
