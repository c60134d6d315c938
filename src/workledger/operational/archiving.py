"""State rows that leave for the archive: chosen, read out, and looked at again under lock before they go.

The tables of what leaves are temporary, so all of it needs one session.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from psycopg import sql

from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = [
    "STATE_FILES",
    "Leaving",
    "any_of",
    "choose",
    "columns_of",
    "copy",
    "discard",
    "ids",
    "lock",
    "lock_conversations",
    "unchanged",
]

#: The tables whose rows leave, with what says which of them do.
STATE_FILES: Final = {
    "workflows": ("leaving_workflows", "workflow_id"),
    "task_executions": ("leaving_workflows", "workflow_id"),
    "conversations": ("leaving_conversations", "conversation_id"),
    "messages": ("leaving_conversations", "conversation_id"),
    "feedback": ("leaving_feedback", "feedback_id"),
}
_ORDER: Final = {
    "workflows": ("workflow_id",),
    "task_executions": ("workflow_id", "execution_id"),
    "conversations": ("conversation_id",),
    "messages": ("conversation_id", "seq"),
    "feedback": ("feedback_id",),
}
_TEMPORARY: Final[tuple[LiteralString, ...]] = ("make_leaving", "make_leaving_conversations", "make_leaving_feedback")
_COPY: Final = sql.SQL(
    "COPY (SELECT {columns} FROM {table} t JOIN pg_temp.{leaving} g USING ({key}) ORDER BY {order})"
    " TO STDOUT (FORMAT csv)"
)
_ANY: Final = sql.SQL("SELECT EXISTS (SELECT FROM {table} t JOIN pg_temp.{leaving} g USING ({key}))")
_PAGE: Final = 2000


class Leaving(msgspec.Struct, frozen=True):
    """A workflow that is locked and may go, and what goes with it."""

    workflow_id: str
    digest: str
    first_position: int
    last_position: int
    conversations: list[str]
    feedback: list[str]


def choose(connection: Connection, *, before: datetime, upto: int, limit: int) -> int:
    """Choose finished workflows to leave, in the snapshot of the transaction at hand; returns how many."""
    discard(connection)
    for name in _TEMPORARY:
        _run(connection, name)
    _execute(connection, "choose_workflows", (before, upto, limit))
    _execute(connection, "choose_conversations", (before,))
    _execute(connection, "choose_feedback", ())
    count = 0
    for page in ids(connection, page=_PAGE):
        digests = _fetch(connection, "leaving_digests", (page,))
        names, values = [row[0] for row in digests], [row[1] for row in digests]
        _execute(connection, "set_leaving_digests", (names, values))
        count += len(page)
    return count


def discard(connection: Connection) -> None:
    """Forget what was chosen."""
    _run(connection, "drop_leaving")


def ids(connection: Connection, *, page: int) -> Iterator[list[str]]:
    """The workflows that were chosen, a page at a time."""
    last = ""
    while rows := _fetch(connection, "leaving_ids", (last, page)):
        yield [row[0] for row in rows]
        last = rows[-1][0]


def columns_of(connection: Connection, table: str, *, generated: bool = False) -> list[tuple[str, str]]:
    """The names and types of a table's columns, of those that are generated only when asked for."""
    return [(name, kind) for name, kind in _fetch(connection, "table_columns", (table, generated))]


def any_of(connection: Connection, table: str) -> bool:
    """Say whether any row of a table leaves."""
    leaving, key = STATE_FILES[table]
    statement = _ANY.format(table=sql.Identifier(table), leaving=sql.Identifier(leaving), key=sql.Identifier(key))
    with translate_errors():
        return connection.execute(statement).fetchone() == (True,)


def copy(connection: Connection, table: str, columns: Sequence[tuple[str, str]]) -> Iterator[bytes]:
    """The rows of a table that leave, each a line of CSV; arrays as JSON."""
    leaving, key = STATE_FILES[table]
    as_json, plain = sql.SQL("array_to_json(t.{})"), sql.SQL("t.{}")
    parts = [(as_json if kind.endswith("[]") else plain).format(sql.Identifier(name)) for name, kind in columns]
    statement = _COPY.format(
        columns=sql.SQL(", ").join(parts),
        table=sql.Identifier(table),
        leaving=sql.Identifier(leaving),
        key=sql.Identifier(key),
        order=sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(name)) for name in _ORDER[table]),
    )
    with translate_errors(), psycopg.Cursor(connection) as cursor, cursor.copy(statement) as rows:
        yield from map(bytes, rows)


def lock(connection: Connection, workflow_ids: Sequence[str]) -> list[Leaving]:
    """Lock those of the workflows that nobody is writing to, until the transaction ends."""
    return [Leaving(*row) for row in _fetch(connection, "lock_leaving", (list(workflow_ids),))]


def lock_conversations(connection: Connection, conversations: Sequence[str], *, of: Sequence[str]) -> set[str]:
    """Lock those of the conversations that belong to these workflows alone, until the transaction ends."""
    return {row[0] for row in _fetch(connection, "lock_leaving_conversations", (list(conversations), list(of)))}


def unchanged(connection: Connection, leaving: Sequence[Leaving]) -> list[Leaving]:
    """Those of which every row is what it was when it was written to a file."""
    now = dict(_fetch(connection, "leaving_digests", ([one.workflow_id for one in leaving],)))
    return [one for one in leaving if now.get(one.workflow_id) == one.digest]


def _run(connection: Connection, name: LiteralString) -> None:
    with translate_errors():
        connection.execute(load("workledger.operational", name), prepare=False)


def _execute(connection: Connection, name: LiteralString, parameters: tuple[Any, ...]) -> None:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", name), parameters)


def _fetch(connection: Connection, name: LiteralString, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.operational", name), parameters)
        return cursor.fetchall()
