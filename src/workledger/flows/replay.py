"""The arrow from the log back to the state: what the events say, folded by the statements that recorded them.

The state is made again in a schema beside the live one, inside a transaction that is rolled back at the end: it sees
one moment of the live schema, however busy that is, and leaves nothing behind, whatever is killed when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString, cast

import msgspec
import orjson
import psycopg
from psycopg import sql

from workledger.log import reader
from workledger.model.change import Change
from workledger.model.records import Event
from workledger.model.upcast import upcast
from workledger.operational.apply import plan, statement
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.migrate import migrate
from workledger.postgres.statements import load

__all__ = ["STATE_TABLES", "Difference", "Unreplayable", "apply_events", "compare", "replay", "shadow_name"]

#: The state tables, parents first, with their keys.
STATE_TABLES: Final = {
    "definitions": ("name", "version"),
    "workers": ("worker_id",),
    "workflows": ("workflow_id",),
    "task_executions": ("execution_id",),
    "conversations": ("conversation_id",),
    "messages": ("message_id",),
    "feedback": ("feedback_id",),
    "archived_workflows": ("workflow_id",),
    "archived_conversations": ("conversation_id",),
}
#: A heartbeat says that a process is alive now; it is nobody's history and has no event.
_NOT_HISTORY: Final = {"workers": frozenset({"heartbeat_at"})}
_PAGE: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreplayable:
    """An event that the statements refuse: as it stands, it cannot have been recorded by them."""

    event: Event
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A row that is not what the log says, as JSON text by column; None on the side that has no such row."""

    table: str
    key: tuple[str, ...]
    live: dict[str, str] | None
    replayed: dict[str, str] | None

    @property
    def columns(self) -> list[str]:
        """The columns that differ, where both sides have the row."""
        live, replayed = self.live or {}, self.replayed or {}
        return [name for name in live if live[name] != replayed.get(name)]


def shadow_name(schema: str) -> str:
    """The name of the schema in which the state of `schema` is made again."""
    return f"{schema[:55]}_rebuild"


def replay(
    connection: Connection, *, schema: str, on_progress: Callable[[int], None] | None = None
) -> list[Unreplayable]:
    """Make the state again from every event that the transaction at hand sees; the caller rolls it back.

    Events are taken in the order of their positions, then those that wait for one, in the order in which they will
    get it. Returns the events that could not be applied.
    """
    _make_shadow(connection, schema)
    refused: list[Unreplayable] = []
    done = 0
    for page in _pages(connection):
        with _in_schema(connection, f"{shadow_name(schema)}, pg_temp"):
            refused += apply_events(connection, page)
        done += len(page)
        if on_progress is not None:
            on_progress(done)
    return refused


def _make_shadow(connection: Connection, schema: str) -> None:
    shadow = shadow_name(schema)
    # Temporary tables come last: a mounted archive must not stand in for what is made here.
    with _in_schema(connection, f"{shadow}, pg_temp"):
        migrate(connection, schema=shadow)
        # Nobody searches the shadow: what is not needed to find a row by its key only makes the replay slow.
        for (drop,) in connection.execute(load("workledger.flows", "slow_parts"), prepare=False).fetchall():
            connection.execute(cast("LiteralString", drop), prepare=False)


class _in_schema:  # noqa: N801  reads as what it is: a `with` block
    """Have unqualified names mean those of another schema, for a block."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection = connection
        self._schema = schema
        self._before = ""

    def __enter__(self) -> None:
        self._before = self._connection.execute("SELECT current_setting('search_path')").fetchone()[0]  # type: ignore[index]  # pyright: ignore[reportOptionalSubscript]
        self._set(self._schema)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._set(self._before)

    def _set(self, path: str) -> None:
        self._connection.execute("SELECT set_config('search_path', %s, true)", (path,))


def _pages(connection: Connection) -> Iterator[list[Event]]:
    head = reader.head(connection)[0]
    for after in range(0, head, _PAGE):
        yield reader.read(connection, after=after, limit=min(_PAGE, head - after))
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.flows", "read_inbox"))
        while rows := cursor.fetchmany(_PAGE):
            yield [Event(*row) for row in rows]


def apply_events(connection: Connection, events: Sequence[Event]) -> list[Unreplayable]:
    """Make of events, which come in order, the rows they stand for, in the tables that `search_path` leads to.

    Events of older versions are upcast. Returns those that could not be applied.
    """
    try:
        _apply(connection, events)
    except psycopg.Error as error:
        if len(events) == 1:
            return [Unreplayable(event=events[0], reason=str(error).splitlines()[0])]
        # One of them cannot be applied and took the others with it: halve, until it stands alone.
        middle = len(events) // 2
        return apply_events(connection, events[:middle]) + apply_events(connection, events[middle:])
    return []


def _apply(connection: Connection, events: Sequence[Event]) -> None:
    recorded_at = {event.event_id: event.recorded_at for event in events}
    with connection.transaction(), connection.pipeline():
        for name, group in plan([_as_change(upcast(event)) for event in events]):
            if name != "record_event":
                with psycopg.RawCursor(connection) as cursor:
                    cursor.execute(statement(name), (_parameter(group, recorded_at),))


def _as_change(event: Event) -> Change:
    return Change(
        event_id=event.event_id,
        event_type=event.event_type,
        entity_type=event.entity_type,
        entity_id=event.entity_id,
        workflow_id=event.workflow_id,
        severity=event.severity,
        created_at=event.created_at,
        expected=None,
        payload=event.payload_json.encode(),
    )


def _parameter(group: Sequence[Change], recorded_at: dict[str, datetime]) -> str:
    rows = [{**change.row(n), "recorded_at": recorded_at[change.event_id]} for n, change in enumerate(group)]
    return orjson.dumps(rows).decode()


# -- comparing --------------------------------------------------------------------------------------------------


def compare(connection: Connection, *, schema: str, table: str, limit: int) -> tuple[int, int, list[Difference]]:
    """Compare a live table with the replayed one, every column of every row.

    Returns the number of live rows, the number of rows that differ, and at most `limit` of those.
    """
    key = STATE_TABLES[table]
    excluded = ["$there", *sorted(_NOT_HISTORY.get(table, ()))]
    names = {
        "live": sql.Identifier(schema, table),
        "replayed": sql.Identifier(shadow_name(schema), table),
        "key": sql.SQL(", ").join(map(sql.Identifier, key)),
        "limit": sql.Literal(limit),
        "excluded": sql.Literal(excluded),
        "live_row": _row("l", table, connection, schema),
        "replayed_row": _row("r", table, connection, schema),
    }
    with translate_errors():
        (rows,) = connection.execute(sql.SQL("SELECT count(*) FROM {live}").format(**names)).fetchone() or (0,)
        found = connection.execute(_DIFFERENCES.format(**names), prepare=False).fetchall()
    differences = [
        Difference(table=table, key=tuple(map(str, key)), live=_columns(live), replayed=_columns(replayed))
        for _, key, live, replayed in found
    ]
    return rows, found[0][0] if found else 0, differences


def _columns(row: str | None) -> dict[str, str] | None:
    if row is None:
        return None
    return {
        name: bytes(value).decode() for name, value in msgspec.json.decode(row, type=dict[str, msgspec.Raw]).items()
    }


_DIFFERENCES: Final = sql.SQL("""
SELECT count(*) OVER (), jsonb_build_array({key}),
       CASE WHEN l."$there" THEN (to_jsonb(l.*) - {excluded}::text[])::text END,
       CASE WHEN r."$there" THEN (to_jsonb(r.*) - {excluded}::text[])::text END
FROM (SELECT t.*, true AS "$there" FROM {live} AS t) AS l
FULL JOIN (SELECT t.*, true AS "$there" FROM {replayed} AS t) AS r USING ({key})
WHERE {live_row} IS DISTINCT FROM {replayed_row}
ORDER BY {key}
LIMIT {limit}
""")


def _row(alias: str, table: str, connection: Connection, schema: str) -> sql.Composable:
    """A row as one comparable value. JSON and numerics are compared as text: 1 and 1.0 are not the same record."""
    found = connection.execute(
        "SELECT attname, atttypid IN ('jsonb'::regtype, 'numeric'::regtype) FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        (sql.Identifier(shadow_name(schema), table).as_string(connection),),
    ).fetchall()
    columns = [
        sql.SQL("{}.{}::text" if as_text else "{}.{}").format(sql.Identifier(alias), sql.Identifier(name))
        for name, as_text in found
        if name not in _NOT_HISTORY.get(table, ())
    ]
    there = sql.SQL('{}."$there"').format(sql.Identifier(alias))
    return sql.SQL("ROW({})").format(sql.SQL(", ").join([there, *columns]))
