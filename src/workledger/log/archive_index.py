"""What is archived and where: the rows of `archives` and what hangs on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from workledger.model.archived import ArchiveFile
from workledger.model.payload import Blob
from workledger.postgres.archive_access import is_mounted
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = [
    "add",
    "add_payloads",
    "add_strays",
    "between",
    "files",
    "last_archived",
    "last_left",
    "mark_removed",
    "not_archived",
    "of_entity",
    "of_workflow",
    "over_time",
    "stored_payloads",
]

#: A file, and the positions in it that are asked for: after the first, up to the second.
Span = tuple[ArchiveFile, int, int]


def files(connection: Connection, *, kind: str | None = None) -> list[ArchiveFile]:
    """Every file of the archive, of one kind or of all, in the order in which they were recorded."""
    return [ArchiveFile(*row) for row in _fetch(connection, "archives", (kind,))]


def between(connection: Connection, *, after: int, upto: int) -> list[ArchiveFile]:
    """The files that hold what is no longer in the database at positions after one and up to another."""
    return [ArchiveFile(*row) for row in _look_up(connection, "archives_between", (after, upto))]


def last_archived(connection: Connection) -> int:
    """The last position whose event is no longer in the database; 0 when all of them are."""
    ((position,),) = _fetch(connection, "last_archived", ())
    return position


def last_left(connection: Connection) -> int:
    """The last position of which the event, or the workflow it is about, is no longer in the database."""
    ((position,),) = _fetch(connection, "last_left", ())
    return position


def over_time(connection: Connection, *, from_id: str, before_id: str) -> list[ArchiveFile]:
    """The files that hold what is no longer in the database with ids between two."""
    return [ArchiveFile(*row) for row in _look_up(connection, "archives_over_time", (from_id, before_id))]


def of_workflow(connection: Connection, workflow_id: str) -> list[Span]:
    """Where the archived events of a workflow are."""
    return _spans(_look_up(connection, "archives_of_workflow", (workflow_id,)))


def of_entity(connection: Connection, entity_type: str, entity_id: str, *, after: int) -> list[Span]:
    """Where the archived events of an entity can be."""
    return _spans(_look_up(connection, "archives_of_entity", (entity_type, entity_id, after)))


# -- what archiving writes ----------------------------------------------------------------------------------------


def add(connection: Connection, file: ArchiveFile) -> None:
    """Record a file, in the transaction of the event that says so; raises `Conflict` when the name is taken."""
    values = [getattr(file, name) for name in ArchiveFile.__struct_fields__[:-2]]
    _execute(connection, "add_archive", values)


def add_payloads(connection: Connection, file: str, digests: Sequence[bytes]) -> None:
    """Record which large values a file has."""
    _execute(connection, "add_archived_payloads", (file, list(digests)))


def add_strays(connection: Connection, file: str, spans: Mapping[str, tuple[int, int]]) -> None:
    """Record which workflows have events in a file where nobody would look for them."""
    first, last = [span[0] for span in spans.values()], [span[1] for span in spans.values()]
    _execute(connection, "add_archived_strays", (file, list(spans), first, last))


def mark_removed(connection: Connection, source: str) -> int:
    """Say that what the files of state rows of a source hold has left the database; returns how many files."""
    ((marked,),) = _fetch(connection, "mark_removed", (source,))
    return marked


def not_archived(connection: Connection, digests: Sequence[bytes]) -> list[tuple[bytes, int]]:
    """Those of the digests whose values are stored and not archived yet, in order, each with its size."""
    return [(digest, size) for digest, size in _fetch(connection, "not_archived_payloads", (list(digests),))]


def stored_payloads(connection: Connection, digests: Sequence[bytes]) -> list[Blob]:
    """Stored values in the order of their digests."""
    rows = _fetch(connection, "stored_payloads", (list(digests),))
    return [Blob(digest=row[0], codec=row[1], size_bytes=row[2], body=row[3]) for row in rows]


def _spans(rows: Sequence[tuple[Any, ...]]) -> list[Span]:
    spans: list[Span] = []
    for *row, first, last in rows:
        file = ArchiveFile(*row)
        spans.append((file, max(first, file.first_position or 0) - 1, min(last, file.last_position or 0)))
    return spans


def _look_up(connection: Connection, name: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Look for files to read; none where their rows stand among those of the database."""
    return [] if is_mounted(connection) else _fetch(connection, name, parameters)


def _fetch(connection: Connection, name: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.log", name), parameters, binary=True)
        return cursor.fetchall()


def _execute(connection: Connection, name: str, parameters: Sequence[Any]) -> None:
    with translate_errors(), psycopg.RawCursor(connection) as cursor:
        cursor.execute(load("workledger.log", name), parameters)
