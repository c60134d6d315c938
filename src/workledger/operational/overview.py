"""What a reader wants to see at once: pages, counts, one workflow as it is stored, the database's own state.

JSON stays the text that is stored: whoever shows it or passes it on need not decode it first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import psycopg
import zstandard

from workledger.errors import NotFound, StoreCorrupted
from workledger.model.jsonvalue import unescape_text
from workledger.model.records import Event, Workflow, from_row
from workledger.operational.reads import Cursor
from workledger.operational.words import words_of
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = [
    "DatabaseFacts",
    "EventPartition",
    "Row",
    "Said",
    "WorkerState",
    "children_of",
    "count_matching_workflows",
    "count_workflows",
    "database_facts",
    "event_partitions",
    "events_page",
    "executions_page",
    "last_pages",
    "messages_page",
    "newer_workflows",
    "newest_branch",
    "recent_choices",
    "stored_json",
    "worker_states",
    "workflow_row",
]

#: A row by column name. JSON columns are the stored text; other text is as it was recorded.
Row = dict[str, Any]

Record = TypeVar("Record")

_ESCAPED = frozenset({"error", "error_traceback", "error_type", "model", "role", "name", "tool_call_id"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts:
    """What the database says of itself. `now` is its clock."""

    version: str
    database: str
    project: str
    is_replica: bool
    database_bytes: int
    project_bytes: int
    schema_version: int
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPartition:
    """One partition of the log. `estimated_rows` comes from the statistics and may lag behind."""

    name: str
    estimated_rows: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """A worker and how it is by the server's clock: `alive`, `overdue` (its lease has passed), `lost`, `stopped`."""

    worker_id: str
    hostname: str
    pid: int
    version: str
    started_at: datetime
    heartbeat_at: datetime
    lease_s: float
    stopped_at: datetime | None
    lost_at: datetime | None
    state: str


def newer_workflows(
    connection: Connection,
    *,
    after: Cursor,
    status: str | None = None,
    name: str | None = None,
    workflow_type: str | None = None,
    tag: str | None = None,
    subject: str | None = None,
    search: str | None = None,
    limit: int = 50,
) -> list[Workflow]:
    """The page above a row, newest first, filtered like `reads.workflows`."""
    filters, page = (status, name, workflow_type, tag, subject, None), (*after, limit)
    if search is None or not search.strip():
        found = _fetch(connection, "list_newer_workflows", (*filters, *page))
    else:
        words = words_of(connection, search)
        found = _fetch(connection, "list_newer_matching", (*filters, words.query, words.ids, *page))
    return [from_row(Workflow, list(row), tuple(row.values())) for row in reversed(found)]


def count_workflows(connection: Connection, *, limit: int) -> dict[str, int]:
    """How many workflows stand in each status, counted to `limit` and no further."""
    return {row["status"]: row["workflows"] for row in _fetch(connection, "count_workflows", (limit,))}


def count_matching_workflows(
    connection: Connection,
    *,
    name: str | None = None,
    workflow_type: str | None = None,
    tag: str | None = None,
    subject: str | None = None,
    search: str | None = None,
) -> dict[str, int]:
    """How many workflows that a filter matches stand in each status; reads them all."""
    words = None if search is None or not search.strip() else words_of(connection, search)
    looked_for = (None, None) if words is None else (words.query, words.ids)
    parameters = (name, workflow_type, tag, subject, *looked_for)
    return {row["status"]: row["workflows"] for row in _fetch(connection, "count_matching_workflows", parameters)}


def recent_choices(connection: Connection) -> dict[str, list[str]]:
    """The `name`s, `type`s and `tag`s of the newest workflows, the most used first."""
    choices: dict[str, list[str]] = {"name": [], "type": [], "tag": []}
    for row in _fetch(connection, "recent_choices", ()):
        choices[row["what"]].append(row["value"])
    return choices


def workflow_row(connection: Connection, workflow_id: str) -> Row:
    """One workflow with what hangs on it counted, and how its worker is; raises `NotFound`."""
    found = _fetch(connection, "show_workflow", (workflow_id,))
    if not found:
        raise NotFound(f"no workflow {workflow_id!r}", entity_type="workflow", entity_id=workflow_id)
    return found[0]


def children_of(connection: Connection, workflow_id: str, *, limit: int) -> list[Workflow]:
    """The workflows that one workflow started, oldest first; inputs and outputs are left out."""
    found = _fetch(connection, "list_children", (workflow_id, limit))
    return [from_row(Workflow, list(row), tuple(row.values())) for row in found]


def executions_page(connection: Connection, workflow_id: str, *, after: str | None, limit: int) -> list[Row]:
    """The attempts of a workflow in the order they began, after one of them (its id)."""
    return _fetch(connection, "show_executions", (workflow_id, after, limit))


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The newest branch of a conversation: the parts it is made of, and how many messages stand in it."""

    conversation_id: str
    first_seqs: list[int]
    last_seqs: list[int]
    total: int
    #: The message just before the last page; None when one page holds all.
    last: int | None


def newest_branch(connection: Connection, conversation_id: str, *, page: int) -> Said:
    """What a conversation says now, to be read in pages of a length; what was said otherwise before is left out."""
    runs = _fetch(connection, "branch_runs", (conversation_id,))
    first_seqs, last_seqs = [run["first_seq"] for run in runs], [run["last_seq"] for run in runs]
    size = _fetch(connection, "branch_size", (conversation_id, first_seqs, last_seqs, page))[0]
    return Said(conversation_id=conversation_id, first_seqs=first_seqs, last_seqs=last_seqs, **size)


def messages_page(connection: Connection, said: Said, *, after_seq: int, limit: int) -> list[Row]:
    """The messages of a branch that stand, in order, after a seq."""
    parameters = (said.conversation_id, said.first_seqs, said.last_seqs, after_seq, limit)
    return _fetch(connection, "show_messages", parameters)


def events_page(connection: Connection, workflow_id: str, *, after: str | None, limit: int) -> list[Event]:
    """The events of a workflow in the order of the log, after one of them (its event id)."""
    return [Event(*row.values()) for row in _fetch(connection, "show_events", (workflow_id, after, limit))]


def last_pages(connection: Connection, row: Row, *, executions: int, events: int) -> Row:
    """Where the last pages of these lengths begin, for a `workflow_row`: `execution`, `event` (or None)."""
    parameters = (row["workflow_id"], executions, events)
    return _fetch(connection, "last_pages", parameters)[0]


def stored_json(connection: Connection, digests: Iterable[bytes]) -> dict[bytes, str]:
    """The JSON of stored payloads by digest; those that are not there have no entry."""
    found = _fetch(connection, "load_payloads", (sorted(set(digests)),))
    return {row["digest"]: _unpacked(row) for row in found}


def database_facts(connection: Connection) -> DatabaseFacts:
    """What the database says of itself."""
    return DatabaseFacts(**_fetch(connection, "database_facts", ())[0])


def event_partitions(connection: Connection) -> list[EventPartition]:
    """The partitions of the log, newest first."""
    return [EventPartition(**row) for row in _fetch(connection, "event_partitions", ())]


def worker_states(connection: Connection, *, limit: int) -> list[WorkerState]:
    """The workers: overdue ones first, then those alive, lost and stopped, each by the newest heartbeat."""
    return [WorkerState(**row) for row in _fetch(connection, "worker_states", (limit,))]


def _unpacked(row: Row) -> str:
    data: bytes = row["body"]
    digest: bytes = row["digest"]
    try:
        if row["codec"] == "json+zstd":
            data = zstandard.ZstdDecompressor().decompress(data, max_output_size=row["size_bytes"])
    except zstandard.ZstdError as error:
        raise StoreCorrupted(
            f"payload {digest.hex()} cannot be decompressed: {error}", location=digest.hex()
        ) from error
    if hashlib.sha256(data).digest() != digest:
        raise StoreCorrupted(
            f"payload {digest.hex()} does not have the content its digest names", location=digest.hex()
        )
    return data.decode()


def _fetch(connection: Connection, name: str, parameters: tuple[Any, ...]) -> list[Row]:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", name), parameters)
        names = [column.name for column in cursor.description or ()]
        return [_unescaped(dict(zip(names, row, strict=True))) for row in cursor.fetchall()]


def _unescaped(row: Row) -> Row:
    for name in _ESCAPED & row.keys():
        if row[name] is not None:
            row[name] = unescape_text(row[name])
    return row
