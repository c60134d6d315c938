"""The four record types and their columns: what one line of the training store says.

One line is one finished thing: an event, an attempt at a task, at a tool, or a run of a workflow. It is a function
of the log up to its own `position` (docs/decisions/0002), so that the same positions give the same bytes.
Columns carry the names and the values of the SQL columns. Text that PostgreSQL cannot hold, and values that JSON
lacks, stand in the form the database has them in (`model.jsonvalue`); exports give them back as they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

import msgspec
import orjson

from workledger.model.status import Kind

__all__ = ["SCHEMAS", "SCHEMA_VERSION", "Column", "ColumnType", "RecordSchema", "RecordType", "type_of_kind"]

#: Rises when a line gets other columns or other values. Every manifest entry names the one it was written with.
SCHEMA_VERSION: Final = 1


class RecordType(StrEnum):
    """What a line is about; also the folder it is in."""

    EVENTS = "events"
    TASKS = "tasks"
    TOOL_EXECUTIONS = "tool_executions"
    WORKFLOWS = "workflows"


def type_of_kind(kind: str) -> RecordType:
    """Give the record type that a finished execution of this kind becomes."""
    return RecordType.TOOL_EXECUTIONS if kind == Kind.TOOL else RecordType.TASKS


class ColumnType(StrEnum):
    """How a column is written; JSON is any value, and in CSV its text."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    TIMESTAMP = "timestamp"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a record type. Every line has every column; where it says nothing it is null."""

    name: str
    type: ColumnType
    description: str
    nullable: bool = True

    def json_schema(self) -> dict[str, Any]:
        """Give what a JSON Schema says about the column."""
        if self.type is ColumnType.JSON:
            return {"description": self.description}
        named = "string" if self.type in {ColumnType.TEXT, ColumnType.TIMESTAMP} else str(self.type)
        schema: dict[str, Any] = {"type": [named, "null"] if self.nullable else named}
        if self.type is ColumnType.TIMESTAMP:
            schema["format"] = "date-time"
        return schema | {"description": self.description}


@dataclass(frozen=True, slots=True)
class RecordSchema:
    """The columns of a record type, in the order in which lines have them."""

    record_type: RecordType
    title: str
    columns: tuple[Column, ...]

    def published(self) -> bytes:
        """Give the JSON Schema that stands beside the data, for people and for readers that want types."""
        document = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"urn:workledger:training:{self.record_type}:{SCHEMA_VERSION}",
            "title": self.title,
            "type": "object",
            "properties": {column.name: column.json_schema() for column in self.columns},
            "required": [column.name for column in self.columns],
            "additionalProperties": False,
            "x-workledger": {
                "schema_version": SCHEMA_VERSION,
                "columns": [{"name": column.name, "type": str(column.type)} for column in self.columns],
                "timestamps": "ISO 8601 in UTC with microseconds: 2026-11-24T06:30:00.000000Z",
                "csv": _CSV_RULES,
            },
        }
        return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    def line_struct(self) -> type[msgspec.Struct]:
        """Give a struct that takes a line apart without reading its values."""
        fields = [(column.name, msgspec.Raw) for column in self.columns]
        return msgspec.defstruct(f"{self.record_type}_line", fields, frozen=True, gc=False)


_CSV_RULES: Final = (
    "RFC 4180 in UTF-8 with a header and CRLF. Null is an empty field without quotes, empty text is a quoted empty"
    " field. A json column holds JSON text; its null is an empty field too."
)


_TEXT, _INT, _NUM, _TIME, _JSON = ColumnType

_POSITION = Column(
    "position", _INT, "Where the log has it: 1, 2, 3, … without gaps; the line's identity", nullable=False
)
_FAILURE = (
    Column("error", _TEXT, "Message of the exception, or reason of a cancellation"),
    Column("error_type", _TEXT, "Type of the exception"),
    Column("error_traceback", _TEXT, "Traceback of the exception"),
)

_EVENTS = RecordSchema(
    RecordType.EVENTS,
    "An event: one immutable fact of the log",
    (
        _POSITION,
        Column("event_id", _TEXT, "UUIDv7 made by whoever recorded it", nullable=False),
        Column("event_type", _TEXT, "What happened: noun.verb_in_past", nullable=False),
        Column("entity_type", _TEXT, "What it happened to: workflow, task, conversation, …"),
        Column("entity_id", _TEXT, "Id of that entity"),
        Column("workflow_id", _TEXT, "The workflow it belongs to"),
        Column("severity", _TEXT, "debug, info, warning, error or critical"),
        Column("created_at", _TIME, "When it happened, by the clock of the recording program", nullable=False),
        Column("recorded_at", _TIME, "When it was recorded, by the clock of the server", nullable=False),
        Column("schema_version", _INT, "Version of the event's payload", nullable=False),
        Column("payload", _JSON, "What the event says; large values in full"),
    ),
)

_EXECUTION = (
    _POSITION,
    Column("started_position", _INT, "Position of its task.started event"),
    Column("execution_id", _TEXT, "Id of this attempt", nullable=False),
    Column("workflow_id", _TEXT, "The workflow it belongs to"),
    Column("conversation_id", _TEXT, "The conversation of that workflow, as known at this position"),
    Column("task_name", _TEXT, "Name of the task or tool"),
    Column("kind", _TEXT, "task, tool, llm or agent", nullable=False),
    Column("status", _TEXT, "completed, failed or cancelled", nullable=False),
    Column("input_data", _JSON, "What it was called with"),
    Column("output_data", _JSON, "What it returned"),
    *_FAILURE,
    Column("retry_count", _INT, "0 for the first attempt", nullable=False),
    Column("execution_time_ms", _NUM, "Duration by a monotonic clock"),
    Column("created_at", _TIME, "When the attempt was made known"),
    Column("started_at", _TIME, "When it began"),
    Column("completed_at", _TIME, "When it ended, whatever its status", nullable=False),
    Column("parent_execution_id", _TEXT, "The execution that called it"),
    Column("step_key", _TEXT, "Its place in the workflow, by which a resumed run finds it again"),
    Column("input_digest", _TEXT, "Digest of its input"),
    Column("worker_id", _TEXT, "The process that ran it"),
    Column("input_tokens", _INT, "Tokens a model read"),
    Column("output_tokens", _INT, "Tokens a model wrote"),
    Column("cost_usd", _NUM, "What a model call cost, in US dollars"),
    Column("model", _TEXT, "Name of the model"),
    Column("metadata", _JSON, "What else was said about it", nullable=False),
)

_WORKFLOW = (
    _POSITION,
    Column("started_position", _INT, "Position of the event that began its history"),
    Column("workflow_id", _TEXT, "Id of the run", nullable=False),
    Column("conversation_id", _TEXT, "Its conversation"),
    Column("name", _TEXT, "Name of the work"),
    Column("workflow_type", _TEXT, "Kind of work"),
    Column("status", _TEXT, "completed, failed or cancelled", nullable=False),
    Column("attempt", _INT, "1, and one more for each time it was resumed; each ending is a line", nullable=False),
    Column("current_step", _TEXT, "The last step that began"),
    Column("total_steps", _INT, "Steps it was to have", nullable=False),
    Column("completed_steps", _INT, "Top-level tasks that were completed", nullable=False),
    Column("state_data", _JSON, "Its last recorded state", nullable=False),
    Column("input_data", _JSON, "What it was called with"),
    Column("output_data", _JSON, "What it returned"),
    *_FAILURE,
    Column("created_at", _TIME, "When it was made known"),
    Column("updated_at", _TIME, "When this ending was recorded, by the clock of the server", nullable=False),
    Column("started_at", _TIME, "When it first began to run"),
    Column("completed_at", _TIME, "When it ended, whatever its status", nullable=False),
    Column("cancel_requested_at", _TIME, "When it was asked to stop"),
    Column("execution_time_ms", _NUM, "Duration by a monotonic clock"),
    Column("definition_version", _TEXT, "Version of its definition"),
    Column("parent_workflow_id", _TEXT, "The workflow that started it"),
    Column("subject", _TEXT, "The person its data is about"),
    Column("trace_id", _TEXT, "Its distributed trace"),
    Column("worker_id", _TEXT, "The process that ran it"),
    Column("tags", _JSON, "List of words to find it by", nullable=False),
    Column("metadata", _JSON, "What else was said about it", nullable=False),
)

SCHEMAS: Final[Mapping[RecordType, RecordSchema]] = MappingProxyType(
    {
        RecordType.EVENTS: _EVENTS,
        RecordType.TASKS: RecordSchema(RecordType.TASKS, "A finished attempt at a task", _EXECUTION),
        RecordType.TOOL_EXECUTIONS: RecordSchema(RecordType.TOOL_EXECUTIONS, "A finished tool call", _EXECUTION),
        RecordType.WORKFLOWS: RecordSchema(RecordType.WORKFLOWS, "A finished run of a workflow", _WORKFLOW),
    }
)
