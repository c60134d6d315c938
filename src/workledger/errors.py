"""Every error Workledger raises, as one tree.

WorkledgerError
├── InvalidInput          a value cannot be recorded: names the field, the value and the limit
├── InvalidTransition     a status may not follow the one that stands
│   └── Superseded        the record was taken over (reaped, resumed elsewhere) while this worker was away
├── Conflict              the same id with different content
├── NotFound              no such workflow, execution, conversation, message or event
├── ReplayMismatch        a resumed workflow does not do what it did before
├── WorkflowCancelled     the workflow was asked to stop (raised inside the running code)
├── TaskTimeout           a task ran longer than its `timeout_s`
├── Unavailable           a store cannot be reached; what was being done can be tried again
│   ├── DatabaseUnavailable
│   ├── SynapseUnavailable
│   └── SpoolFull         PostgreSQL is away and the local spool has reached its bound
├── SchemaError           the database's schema is not the one this version needs
├── ConfigurationError    a setting is missing or malformed
├── MissingExtra          an optional part is not installed
├── StoreCorrupted        stored bytes are not what their manifest, digest or seal says
└── VerificationFailed    `verify` found a fault

Errors carry what they know as attributes and survive pickling.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ConfigurationError",
    "Conflict",
    "DatabaseUnavailable",
    "InvalidInput",
    "InvalidTransition",
    "MissingExtra",
    "NotFound",
    "ReplayMismatch",
    "SchemaError",
    "SpoolFull",
    "StoreCorrupted",
    "Superseded",
    "SynapseUnavailable",
    "TaskTimeout",
    "Unavailable",
    "VerificationFailed",
    "WorkflowCancelled",
    "WorkledgerError",
]


class WorkledgerError(Exception):
    """The root: `except WorkledgerError` catches whatever Workledger raises."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def __getattr__(self, name: str) -> Any:
        """Give `error.field` for what was passed as `field=`."""
        if name.startswith("_") or name == "details":
            raise AttributeError(name)
        try:
            return self.details[name]
        except KeyError:
            raise AttributeError(name) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.details))


def _rebuild(kind: type[WorkledgerError], message: str, details: dict[str, Any]) -> WorkledgerError:
    return kind(message, **details)


class InvalidInput(WorkledgerError, ValueError):
    """A value cannot be recorded. Attributes: `field`, `value`, `limit`."""


class InvalidTransition(WorkledgerError):
    """A status may not follow the one that stands. Attributes: `entity_id`, `current`, `wanted`."""


class Superseded(InvalidTransition):
    """The record was reaped or resumed elsewhere while this worker was away."""


class Conflict(WorkledgerError):
    """The same id was already recorded with different content. Attribute: `entity_id`."""


class NotFound(WorkledgerError, LookupError):
    """No such thing. Attributes: `entity_type`, `entity_id`."""


class ReplayMismatch(WorkledgerError):
    """A resumed workflow does not do what it did before. Attributes: `step`, `recorded`, `found`."""


class WorkflowCancelled(WorkledgerError):
    """The workflow was asked to stop. Attribute: `workflow_id`."""


class TaskTimeout(WorkledgerError, TimeoutError):
    """A task ran longer than allowed. Attributes: `task_name`, `timeout_s`."""


class Unavailable(WorkledgerError):
    """A store cannot be reached; what was being done can be tried again."""


class DatabaseUnavailable(Unavailable):
    """PostgreSQL cannot be reached."""


class SynapseUnavailable(Unavailable):
    """The bus cannot be reached; the log still holds everything."""


class SpoolFull(Unavailable):
    """PostgreSQL is away and the local spool has reached its bound. Attributes: `size_bytes`, `limit_bytes`."""


class SchemaError(WorkledgerError):
    """The database's schema is not the one this version needs; `workledger migrate` is the usual way out."""


class ConfigurationError(WorkledgerError):
    """A setting is missing or malformed. Attributes: `setting`, `value`."""


class MissingExtra(WorkledgerError, ImportError):
    """An optional part is not installed. Attribute: `extra`."""


class StoreCorrupted(WorkledgerError):
    """Stored bytes are not what their manifest, digest or seal says. Attribute: `location`."""


class VerificationFailed(WorkledgerError):
    """`verify` found a fault."""
