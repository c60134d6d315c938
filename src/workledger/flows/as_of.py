"""The arrow from the log back to a moment: the state as it was at a position, to be read like the present one.

The events up to the position are replayed into temporary tables that have the names of the state tables, over a
connection that sees them first; the log is shown as it was, too. So whatever reads the present reads the past, and
nobody else sees any of it. What was made is gone with the connection, whatever is killed when.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, Literal

import psycopg
from psycopg import sql

from workledger.errors import ConfigurationError, InvalidInput, StoreCorrupted, WorkledgerError
from workledger.flows.replay import STATE_TABLES, apply_events
from workledger.log import archive_index, reader
from workledger.log.follow_selection import of_entity
from workledger.model.change import check_time
from workledger.model.records import Conversation, Event, Feedback, Message, TaskExecution, Workflow
from workledger.operational import branches, reads
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = ["Past", "as_of", "position_at"]

_PAGE: Final = 1000
_NAME_CONVERSATIONS: Final = frozenset({"workflow.created", "workflow.started", "workflow.progressed"})
_PAST_TABLE: Final = sql.SQL("CREATE TEMPORARY TABLE {name} (LIKE {live} INCLUDING ALL EXCLUDING INDEXES)")
#: Beside the keys, what the replay and the reads find rows by.
_PAST_INDEXES: Final = (
    sql.SQL("CREATE UNIQUE INDEX ON pg_temp.messages (conversation_id, seq)"),
    sql.SQL("CREATE INDEX ON pg_temp.task_executions (workflow_id)"),
)
#: The statements that record also name these, and write nothing to them in a replay; who only reads may not name ours.
_UNUSED: Final = ("events", "event_inbox")
#: What the log looked like; positions are only ever added, so this is all there was.
_PAST_LOG: Final = (
    sql.SQL(
        "CREATE TEMPORARY VIEW event_positions AS"
        " SELECT position, event_id FROM {schema}.event_positions WHERE position <= {position}"
    ),
    sql.SQL(
        "CREATE TEMPORARY VIEW events AS SELECT e.* FROM {schema}.events e"
        " WHERE EXISTS (SELECT FROM {schema}.event_positions p"
        " WHERE p.event_id = e.event_id AND p.position <= {position})"
    ),
    sql.SQL("CREATE TEMPORARY VIEW event_inbox AS SELECT seq, event_id FROM {schema}.event_inbox WHERE false"),
    sql.SQL("CREATE TEMPORARY VIEW log_head AS SELECT true AS one, {position}::bigint AS position"),
)
_VIEWS: Final = ("log_head", "event_inbox", "events", "event_positions")
# Leases ran then; by the clock of today they would all be over.
_EXTEND_LEASES: Final = """
UPDATE pg_temp.workers SET heartbeat_at = now() + interval '100 years'
WHERE stopped_at IS NULL AND lost_at IS NULL"""


class Past:
    """The ledger as it was at a position: answers the reads of the SDK, and lends its connection for any other."""

    def __init__(self, connection: Connection, position: int) -> None:
        self._connection = connection
        self.position = position

    @contextmanager
    def connection(self) -> Generator[Connection]:
        """The connection over which the tables are those of the past; whatever only reads may use it."""
        yield self._connection

    def get_workflow(self, workflow_id: str) -> Workflow:
        """One workflow as it stood; raises `NotFound` when it had not begun."""
        return reads.workflow(self._connection, workflow_id)

    def workflows(self, **filters: Any) -> list[Workflow]:
        """Workflows newest first; see `operational.reads.workflows` for the filters."""
        return reads.workflows(self._connection, **filters)

    def running(self, *, limit: int = 100) -> list[Workflow]:
        """What was running, oldest first."""
        return reads.running_workflows(self._connection, limit=limit)

    def failed(self, *, since: datetime | None = None, limit: int = 50) -> list[Workflow]:
        """What had failed, newest failure first."""
        return reads.failed_workflows(self._connection, since=since, limit=limit)

    def count_by_status(self) -> dict[str, dict[str, int]]:
        """How many workflows and executions stood in each status."""
        return reads.count_by_status(self._connection)

    def executions(self, workflow_id: str) -> list[TaskExecution]:
        """Every attempt of a workflow that had begun."""
        return reads.executions_of(self._connection, workflow_id)

    def get_conversation(self, conversation_id: str) -> Conversation:
        """One conversation as it stood; raises `NotFound` when it had not begun."""
        return reads.conversation(self._connection, conversation_id)

    def messages(self, conversation_id: str, *, after_seq: int = 0, limit: int = 10_000) -> list[Message]:
        """The messages of a conversation's newest branch, in order."""
        return branches.branch(self._connection, conversation_id, after_seq=after_seq, limit=limit)

    def feedback_of(self, workflow_id: str) -> list[Feedback]:
        """Every judgement of a workflow."""
        return reads.feedback_of(self._connection, workflow_id)

    def events(self, workflow_id: str) -> list[Event]:
        """The events of a workflow up to the position."""
        return reader.of_workflow(self._connection, workflow_id)


@contextmanager
def as_of(
    connection: Connection,
    position: int,
    *,
    schema: str,
    workflow_id: str | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Generator[Past]:
    """Give the ledger as it was at a position, for the block; `workflow_id` makes it quick, and leaves the rest out.

    The connection must be in autocommit and is the past's own until the block ends; one for recording has the plans
    that the replay is quick with. Raises `InvalidInput` for a position that the log does not have, and
    `StoreCorrupted` when events up to it are missing or cannot be replayed, `ConfigurationError` behind a pooler.
    """
    if connection.prepare_threshold is None:
        raise ConfigurationError(
            "the past is shown in a session of its own, which PgBouncer in transaction mode does not give; name the "
            "server itself in WORKLEDGER_DATABASE_URL, and leave WORKLEDGER_POOLED out",
            setting="pooled",
            value=True,
        )
    head = reader.head(connection)[0]
    if not 0 <= position <= head:
        raise InvalidInput(
            f"the log has positions up to {head}, not {position}", field="position", value=position, limit=head
        )
    pages = _all_pages(connection, position) if workflow_id is None else _pages_of(connection, workflow_id, position)
    paths = _Paths(connection, schema)
    with _shadowed(connection, schema, paths):
        done = 0
        for page in pages:
            paths.lead_to_past()
            _replay(connection, page)
            paths.lead_to_present()
            done += len(page)
            if on_progress is not None:
                on_progress(done)
        _finish(connection, schema, position)
        paths.lead_to_past()
        yield Past(connection, position)


def position_at(connection: Connection, at: datetime) -> int:
    """The last position that was recorded by a time, by the server's clock; 0 when the log begins later.

    Transactions that were open at that moment may fall on either side.
    """
    at = check_time("at", at)
    low, high = 0, reader.head(connection)[0]
    while low < high:
        middle = (low + high + 1) // 2
        if _recorded_by(connection, middle, at):
            low = middle
        else:
            high = middle - 1
    return low


def _recorded_by(connection: Connection, position: int, at: datetime) -> bool:
    events = reader.read(connection, after=position - 1, limit=1)
    # What is not in the database any more was archived because it is old.
    return not events or events[0].recorded_at <= at


def _all_pages(connection: Connection, position: int) -> Iterator[list[Event]]:
    for after in range(0, position, _PAGE):
        events = reader.read(connection, after=after, limit=min(_PAGE, position - after))
        if len(events) < min(_PAGE, position - after):
            raise StoreCorrupted(
                f"positions {after + 1} to {min(after + _PAGE, position)} hold {len(events)} events; "
                "`workledger verify` says what is wrong",
                location=f"event_positions {after + 1}..{position}",
            )
        yield events


def _pages_of(connection: Connection, workflow_id: str, position: int) -> Iterator[list[Event]]:
    if archive_index.last_archived(connection):
        yield from _archived_pages_of(connection, workflow_id, position)
        return
    after = 0
    while True:
        with translate_errors(), psycopg.RawCursor(connection) as cursor:
            cursor.execute(load("workledger.flows", "workflow_history"), (workflow_id, after, position, _PAGE))
            events = [Event(*row) for row in cursor.fetchall()]
        if not events:
            return
        yield events
        after = events[-1].position or position


def _archived_pages_of(connection: Connection, workflow_id: str, position: int) -> Iterator[list[Event]]:
    """The same events, of which any may be in the archive; files cannot be asked as a whole."""
    events = reader.of_workflow(connection, workflow_id)
    conversations = {event.entity_id for event in events if event.entity_type == "conversation"}
    conversations |= {named for event in events if (named := _conversation_in(event)) is not None}
    said = [event for one in sorted(conversations) for event in _all_of_conversation(connection, one)]
    found = {event.position: event for event in (*events, *said) if event.position and event.position <= position}
    ordered = [found[place] for place in sorted(found)]
    yield from (ordered[at : at + _PAGE] for at in range(0, len(ordered), _PAGE))


def _conversation_in(event: Event) -> str | None:
    return event.payload.get("conversation_id") if event.event_type in _NAME_CONVERSATIONS else None


def _all_of_conversation(connection: Connection, conversation_id: str) -> Iterator[Event]:
    after = 0
    while events := of_entity(connection, "conversation", conversation_id, after=after, limit=_PAGE):
        yield from events
        after = events[-1].position or after


def _replay(connection: Connection, events: list[Event]) -> None:
    with translate_errors():
        refused = apply_events(connection, events)
    if refused:
        first = refused[0]
        raise StoreCorrupted(
            f"the event at position {first.event.position} cannot be replayed: {first.reason}",
            location=f"event_positions[{first.event.position}]",
        )


class _Paths:
    """Which tables unqualified names lead to. Both paths name all their schemas, so that plans notice a change."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection = connection
        self._schema = sql.Identifier(schema).as_string(connection)
        ((self._before,),) = connection.execute("SELECT current_setting('search_path')").fetchall()

    def lead_to_past(self) -> None:
        self._lead(f"pg_temp, {self._schema}")

    def lead_to_present(self) -> None:
        self._lead(f"{self._schema}, pg_temp")

    def lead_where_they_led(self) -> None:
        self._lead(self._before)

    def _lead(self, path: str) -> None:
        with translate_errors():
            self._connection.execute("SELECT set_config('search_path', %s, false)", (path,))


@contextmanager
def _shadowed(connection: Connection, schema: str, paths: _Paths) -> Generator[None]:
    """Have empty temporary tables with the names of the state tables, for the block."""
    with translate_errors():
        if connection.execute("SELECT to_regclass('pg_temp.workflows')").fetchone() != (None,):
            raise WorkledgerError("this connection shows a moment of the past already; use another one")
        for name in (*STATE_TABLES, *_UNUSED):
            connection.execute(
                _PAST_TABLE.format(name=sql.Identifier(name), live=sql.Identifier(schema, name)), prepare=False
            )
        for name, key in STATE_TABLES.items():
            columns = sql.SQL(", ").join(map(sql.Identifier, key))
            add_key = sql.SQL("ALTER TABLE pg_temp.{} ADD PRIMARY KEY ({})")
            connection.execute(add_key.format(sql.Identifier(name), columns), prepare=False)
        for index in _PAST_INDEXES:
            connection.execute(index, prepare=False)
    paths.lead_to_present()
    try:
        yield
    finally:
        if not connection.closed and not connection.broken:
            _drop(connection, "VIEW", _VIEWS)
            _drop(connection, "TABLE", (*STATE_TABLES, *_UNUSED))
            paths.lead_where_they_led()


def _drop(connection: Connection, kind: Literal["VIEW", "TABLE"], names: Iterable[str]) -> None:
    """Drop what is there of this kind: a name may stand for a table first and for a view later."""
    with translate_errors():
        found = connection.execute(
            "SELECT relname::text FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relname = ANY (%s)"
            " AND relkind = %s",
            (list(names), "v" if kind == "VIEW" else "r"),
        ).fetchall()
        for (name,) in found:
            statement = sql.SQL("DROP VIEW pg_temp.{}") if kind == "VIEW" else sql.SQL("DROP TABLE pg_temp.{}")
            connection.execute(statement.format(sql.Identifier(name)), prepare=False)


def _finish(connection: Connection, schema: str, position: int) -> None:
    _drop(connection, "TABLE", _UNUSED)
    with translate_errors():
        connection.execute(_EXTEND_LEASES)
        for view in _PAST_LOG:
            connection.execute(
                view.format(schema=sql.Identifier(schema), position=sql.Literal(position)), prepare=False
            )
