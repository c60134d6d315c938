"""Reading whole pages: each from one snapshot, in a read-only transaction, within a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from workledger.errors import InvalidInput, NotFound, Unavailable, WorkledgerError
from workledger.log import consumers, reader
from workledger.model.records import Workflow
from workledger.operational import overview, reads
from workledger.operational.overview import Row, Said
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.pool import ConnectionPool
from workledger.server import building, health
from workledger.server.views import (
    EventPage,
    Filters,
    Health,
    StatusCount,
    TrainingFacts,
    Value,
    WorkflowDetail,
    WorkflowList,
    WorkflowSummary,
)

__all__ = ["After", "Reader"]

#: Workflows in a status are counted to here.
COUNT_LIMIT: Final = 10_000

_COUNT_TIMEOUT_S: Final = 1.0
_QUERY_CANCELED: Final = "57014"
_CHILDREN: Final = 100
_WORKERS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    """Where the pages of one workflow begin: after an execution, a message's seq, an event; and how long they are."""

    execution: str | None = None
    message: int = 0
    event: str | None = None
    executions: int = 200
    messages: int = 500
    events: int = 200


class Reader:
    """Reads what a page shows. At most `slots` pages are read at once; the others wait, then get `Unavailable`."""

    def __init__(
        self,
        pool: ConnectionPool,
        *,
        training: Callable[[], TrainingFacts | None] | None = None,
        timeout_s: float = 5.0,
        slots: int = 8,
    ) -> None:
        self._pool = pool
        self._training = training
        self._timeout_s = timeout_s
        self._slots = threading.BoundedSemaphore(slots)

    def workflows(self, filters: Filters, *, older: str | None, newer: str | None, limit: int) -> WorkflowList:
        """One page of workflows: the newest, or those beside a cursor."""
        with self._snapshot() as connection:
            page, has_newer, has_older = _page(connection, filters, older=older, newer=newer, limit=limit)
            return WorkflowList(
                workflows=tuple(building.summary(workflow) for workflow in page),
                filters=filters,
                newer=_cursor(page[0]) if page and has_newer else None,
                older=_cursor(page[-1]) if page and has_older else None,
                now=_now(connection),
                counts=_counts(connection, filters),
            )

    def choices(self) -> dict[str, list[str]]:
        """What the filters offer: the names, types and tags of the newest workflows."""
        with self._snapshot() as connection:
            return overview.recent_choices(connection)

    def workflow(self, workflow_id: str, after: After) -> WorkflowDetail:
        """One workflow with a page of each thing that hangs on it; raises `NotFound`."""
        with self._snapshot() as connection:
            row = overview.workflow_row(connection, workflow_id)
            executions = overview.executions_page(
                connection, workflow_id, after=after.execution, limit=after.executions + 1
            )
            said = _said(connection, row["conversation_id"], after)
            messages = _messages(connection, said, after)
            values = building.Values.load(connection, [row, *executions, *messages])
            last = _last_pages(connection, row, after)
            return WorkflowDetail(
                workflow=building.workflow(row, values),
                executions=building.execution_page(
                    executions, values, limit=after.executions, total=row["executions_total"], last=last["execution"]
                ),
                messages=building.message_page(
                    messages,
                    values,
                    limit=after.messages,
                    total=0 if said is None else said.total,
                    last=None if said is None else said.last,
                ),
                events=_events(connection, row, after, last=last["event"]),
                feedback=tuple(building.feedback(item) for item in reads.feedback_of(connection, workflow_id)),
                children=_children(connection, workflow_id),
                children_total=row["children_total"],
                now=_now(connection),
            )

    def events(self, workflow_id: str, after: After) -> EventPage:
        """One page of a workflow's events; raises `NotFound`."""
        with self._snapshot() as connection:
            row = overview.workflow_row(connection, workflow_id)
            return _events(connection, row, after, last=_last_pages(connection, row, after)["event"])

    def value(self, digest: str) -> Value:
        """A stored value, whole; raises `NotFound`."""
        with self._snapshot() as connection:
            found = overview.stored_json(connection, [_read_digest(digest)])
        if not found:
            raise NotFound(f"no stored value {digest}", entity_type="payload", entity_id=digest)
        (json,) = found.values()
        return Value(json=json, size_bytes=len(json.encode()), digest=digest.lower())

    def health(self) -> Health:
        """How the ledger is."""
        training, fault = self._landed()
        with self._snapshot() as connection:
            head, unsequenced = reader.head(connection)
            return health.judge(
                head=head,
                unsequenced=unsequenced,
                consumers=consumers.consumers(connection),
                workers=overview.worker_states(connection, limit=_WORKERS),
                training=training,
                training_fault=fault,
                database=overview.database_facts(connection),
                partitions=overview.event_partitions(connection),
            )

    def _landed(self) -> tuple[TrainingFacts | None, str | None]:
        """The training store, or why it cannot be read; the rest of the page does not depend on it."""
        try:
            return (None if self._training is None else self._training()), None
        except (WorkledgerError, OSError) as error:
            return None, str(error)

    @contextmanager
    def _snapshot(self) -> Generator[Connection]:
        if not self._slots.acquire(timeout=self._timeout_s):
            raise Unavailable("the dashboard is answering as many requests as it may; try again in a moment")
        try:
            with (
                self._pool.connection() as connection,
                _time_limit(self._timeout_s),
                translate_errors(),
                connection.transaction(),
            ):
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                _set_timeout(connection, self._timeout_s)
                yield connection
        finally:
            self._slots.release()


@contextmanager
def _time_limit(timeout_s: float) -> Generator[None]:
    """Say what happened when the database stopped a statement for its length."""
    try:
        yield
    except Unavailable as error:
        if getattr(error.__cause__, "sqlstate", None) != _QUERY_CANCELED:
            raise
        raise Unavailable(
            f"the database took longer than {timeout_s:g} s to answer; narrow the filter, or try again"
        ) from error.__cause__


def _set_timeout(connection: Connection, timeout_s: float) -> None:
    connection.execute("SELECT set_config('statement_timeout', %s, true)", (f"{timeout_s * 1000:.0f}",))


def _page(
    connection: Connection, filters: Filters, *, older: str | None, newer: str | None, limit: int
) -> tuple[list[Workflow], bool, bool]:
    """The workflows of a page, newest first, and whether there are newer and older ones."""
    given: dict[str, Any] = {**_narrowed(filters), "status": filters.status, "limit": limit + 1}
    if newer is not None:
        found = overview.newer_workflows(connection, after=_read_cursor(newer), **given)
        return found[-limit:], len(found) > limit, True
    before = None if older is None else _read_cursor(older)
    found = reads.workflows(connection, before=before, **given)
    return found[:limit], older is not None, len(found) > limit


def _narrowed(filters: Filters) -> dict[str, str | None]:
    """The filters other than the status."""
    return {
        "name": filters.name,
        "workflow_type": filters.type,
        "tag": filters.tag,
        "subject": filters.subject,
        "search": filters.q,
    }


def _counts(connection: Connection, filters: Filters) -> tuple[StatusCount, ...] | None:
    """How many workflows stand in each status; None when counting takes too long. The last thing in a snapshot."""
    narrowed = _narrowed(filters)
    is_narrowed = any(narrowed.values())
    try:
        with _time_limit(_COUNT_TIMEOUT_S), translate_errors(), connection.transaction():
            _set_timeout(connection, _COUNT_TIMEOUT_S)
            if is_narrowed:
                counted = overview.count_matching_workflows(connection, **narrowed)
            else:
                counted = overview.count_workflows(connection, limit=COUNT_LIMIT + 1)
    except Unavailable:
        if connection.closed:
            raise
        return None
    return tuple(_count(status, count, is_exact=is_narrowed) for status, count in counted.items())


def _count(status: str, count: int, *, is_exact: bool) -> StatusCount:
    is_capped = not is_exact and count > COUNT_LIMIT
    return StatusCount(status=status, count=COUNT_LIMIT if is_capped else count, is_capped=is_capped)


def _said(connection: Connection, conversation_id: str | None, after: After) -> Said | None:
    if conversation_id is None:
        return None
    return overview.newest_branch(connection, conversation_id, page=after.messages)


def _messages(connection: Connection, said: Said | None, after: After) -> list[Row]:
    if said is None:
        return []
    return overview.messages_page(connection, said, after_seq=after.message, limit=after.messages + 1)


def _events(connection: Connection, row: Row, after: After, *, last: str | None) -> EventPage:
    found = overview.events_page(connection, row["workflow_id"], after=after.event, limit=after.events + 1)
    return building.event_page(found, limit=after.events, total=row["events_total"], last=last)


def _last_pages(connection: Connection, row: Row, after: After) -> Row:
    """Where the last pages begin; asked only when one page does not hold all."""
    if row["executions_total"] <= after.executions and row["events_total"] <= after.events:
        return {"execution": None, "event": None}
    return overview.last_pages(connection, row, executions=after.executions, events=after.events)


def _children(connection: Connection, workflow_id: str) -> tuple[WorkflowSummary, ...]:
    found = overview.children_of(connection, workflow_id, limit=_CHILDREN)
    return tuple(building.summary(child) for child in found)


def _cursor(workflow: Workflow) -> str:
    return f"{workflow.created_at.astimezone(UTC).isoformat()},{workflow.workflow_id}"


def _read_cursor(text: str) -> tuple[datetime, str]:
    at, _, workflow_id = text.partition(",")
    try:
        created_at = datetime.fromisoformat(at)
    except ValueError:
        created_at = None
    if created_at is None or created_at.tzinfo is None or not workflow_id:
        raise InvalidInput(
            f"cursor {text[:80]!r} is not one that a page gave", field="cursor", value=text, limit="time,workflow_id"
        )
    return created_at, workflow_id


def _read_digest(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32:  # noqa: PLR2004  SHA-256
        raise InvalidInput(
            f"{text[:80]!r} is no digest; it has 64 hexadecimal digits", field="digest", value=text, limit=64
        )
    return digest


def _now(connection: Connection) -> datetime:
    row = connection.execute("SELECT now()").fetchone()
    return row[0] if row else datetime.now(UTC)
