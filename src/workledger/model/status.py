"""The statuses, and the one table of which may follow which.

stateDiagram-v2
[*] --> pending
[*] --> running
pending --> running : started
running --> completed
pending --> failed
running --> failed
pending --> cancelled
running --> cancelled
failed --> running : resumed (workflows only)
cancelled --> running : resumed (workflows only)
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final

__all__ = ["LEGAL_BEFORE", "TERMINAL", "Kind", "Severity", "Status"]


class Status(StrEnum):
    """Where a workflow or a task execution stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Kind(StrEnum):
    """What a task execution is."""

    TASK = "task"
    TOOL = "tool"
    LLM = "llm"
    AGENT = "agent"


class Severity(StrEnum):
    """How much an event matters."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


TERMINAL: Final = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})

_OPEN = (Status.PENDING, Status.RUNNING)

#: For each event type that changes a status: the statuses of the entity (of its workflow, for `task.started`)
#: that it may follow. An empty tuple means that the entity must not exist yet.
LEGAL_BEFORE: Final = MappingProxyType(
    {
        "workflow.created": (),
        "workflow.started": (Status.PENDING,),
        "workflow.progressed": (Status.RUNNING,),
        "workflow.cancel_requested": _OPEN,
        "workflow.completed": (Status.RUNNING,),
        "workflow.failed": _OPEN,
        "workflow.cancelled": _OPEN,
        "workflow.resumed": (Status.PENDING, Status.RUNNING, Status.FAILED, Status.CANCELLED),
        "workflow.archived": (Status.COMPLETED, Status.FAILED, Status.CANCELLED),
        "task.started": (Status.RUNNING,),
        "task.completed": (Status.RUNNING,),
        "task.failed": _OPEN,
        "task.cancelled": _OPEN,
    }
)
