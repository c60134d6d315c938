"""The log as the training store reads it: events as ready lines, and what earlier positions say."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from psycopg.adapt import Transformer
from psycopg.types.string import ByteaBinaryLoader

from workledger.errors import StoreCorrupted
from workledger.model.payload import Blob
from workledger.postgres.blocking import can_run_alone, run_alone
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load
from workledger.training.records import RecordType

__all__ = ["Line", "LogEvent", "LogLines", "Steps"]

#: A line of the record type `events`: its position, the event's type, and its bytes.
Line = tuple[int, str, bytes]

PAGE_BYTES: Final = 8 * 1024 * 1024
_FIRST_PAGE_ROWS: Final = 250
_LONG_LINE_BYTES: Final = 16 * 1024
_ANY_BYTES: Final = 2**31 - 1
_EMPTY: Final = msgspec.Raw(b"{}")


class LogEvent(msgspec.Struct, frozen=True, gc=False):
    """An event as far as other lines are made of it. The payload is not read until somebody needs it."""

    position: int
    event_type: str
    entity_id: str | None
    workflow_id: str | None
    created_at: str
    recorded_at: str
    payload: msgspec.Raw = _EMPTY


class Steps(msgspec.Struct, frozen=True, gc=False):
    """What a workflow's top-level tasks had come to: how many were completed, which began last, and where."""

    completed: int
    last_position: int
    last_name: msgspec.Raw


class LogLines:
    """Reads the log over somebody's connection; leaves nothing behind on it.

    What it gives for positions at or below the head never changes, whoever asks and whenever.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._page_rows = _FIRST_PAGE_ROWS

    def read(self, *, after: int, limit: int) -> list[Line]:
        """Give the lines after a position, in order: at most `limit`, and no more than a page of bytes at once.

        At least one, unless there is none. The page grows to what fits: events are small or large in runs.
        """
        wanted = min(limit, self._page_rows)
        rows = self._page(after, after + wanted)
        lines = self._within_page(rows)
        self._page_rows = len(lines) if len(lines) < len(rows) else max(self._page_rows, wanted * 4)
        return lines

    def _within_page(self, rows: list[Any]) -> list[Line]:
        """Give the rows up to a page of bytes, with the long ones fetched."""
        lines: list[Line] = []
        size_bytes = 0
        for row in rows:
            line = row if row[2] is not None else (row[0], row[1], self._long_line(row[0]))
            lines.append(line)
            size_bytes += len(line[2])
            if size_bytes > PAGE_BYTES:
                break
        return lines

    def iterate(self, *, after: int, upto: int, page: int) -> Iterator[list[Line]]:
        """Give the lines from `after + 1` to `upto`, a page at a time."""
        while after < upto:
            lines = self.read(after=after, limit=min(page, upto - after))
            if not lines and self.event_id(after + 1) is None:
                return
            last = lines[-1][0] if lines else after + 1
            if last - after != len(lines):
                raise StoreCorrupted(
                    f"positions {after + 1} to {last} of the log hold {len(lines)} events; `workledger verify` "
                    "says whether they are archived or missing",
                    location=f"event_positions {after + 1}..{last}",
                )
            yield lines
            after = last

    def event_id(self, position: int) -> str | None:
        """Give the id of the event at a position; None where the log has none."""
        rows = self._fetch("event_id_at", (position,))
        return rows[0][0] if rows else None

    def started(self, execution_ids: Iterable[str], *, upto: int) -> dict[str, LogEvent]:
        """Give the events that started these executions, by execution, as far as the log goes to `upto`."""
        rows = self._fetch("executions_started", (list(execution_ids), upto))
        return {row[2]: _event(row) for row in rows}

    def workflow_history(self, workflow_ids: Iterable[str], *, upto: int) -> list[LogEvent]:
        """Give the events that moved these workflows themselves, in order, up to a position."""
        return [_event(row) for row in self._fetch("workflow_history", (list(workflow_ids), upto))]

    def steps_history(self, workflow_ids: Iterable[str], *, upto: int) -> dict[str, Steps]:
        """Give what the top-level tasks of these workflows had come to at a position."""
        rows = self._fetch("steps_history", (list(workflow_ids), upto))
        return {row[0]: Steps(row[1], row[2], msgspec.Raw(row[3].encode())) for row in rows}

    def any_created(self) -> bool:
        """Say whether any workflow was ever created before it was started."""
        return self._fetch("any_created", ())[0][0]

    def payloads(self, digests: Sequence[bytes]) -> dict[bytes, Blob]:
        """Give stored payloads by digest; one that is not stored is left out."""
        rows = self._fetch("payloads", (list(digests),))
        return {row[0]: Blob(digest=row[0], codec=row[1], size_bytes=row[2], body=row[3]) for row in rows}

    def count(self, *, after: int, upto: int) -> dict[RecordType, int]:
        """Count the lines of each record type from the log alone, by SQL."""
        with translate_errors(), psycopg.RawCursor(self._connection) as cursor:
            cursor.execute(_statement("count_records"), (after, upto))
            (row,) = cursor.fetchall()
        return dict(zip(RecordType, row, strict=True))

    def _page(self, after: int, upto: int, *, longest_bytes: int = _LONG_LINE_BYTES) -> list[Any]:
        # In the main thread Ctrl-C has to get through, whatever has become of the server.
        if threading.current_thread() is not threading.main_thread() and can_run_alone(self._connection):
            return self._page_at_once(after, upto, longest_bytes)
        with self._tuned() as cursor:
            _keep_text_as_bytes(cursor)
            cursor.execute(_statement("event_lines"), (after, upto, longest_bytes), binary=True)
            return cursor.fetchall()

    def _page_at_once(self, after: int, upto: int, longest_bytes: int) -> list[Any]:
        """Read a page in one call, because others work on the page before meanwhile."""
        statement, settings = _statement("event_lines"), _statement("page_settings")
        with translate_errors(), psycopg.RawCursor(self._connection) as cursor:
            result = run_alone(
                self._connection, "workledger_event_lines", statement, after, upto, longest_bytes, settings=settings
            )
            _keep_text_as_bytes(cursor)
            reader = Transformer(cursor)
            reader.set_pgresult(result)
            return reader.load_rows(0, result.ntuples, tuple)

    def _long_line(self, position: int) -> bytes:
        ((_, _, data),) = self._page(position - 1, position, longest_bytes=_ANY_BYTES)
        return data

    def _fetch(self, name: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._tuned() as cursor:
            cursor.execute(_statement(name), parameters, binary=True)
            return cursor.fetchall()

    @contextmanager
    def _tuned(self) -> Generator[psycopg.RawCursor[Any]]:
        """Give a cursor in a transaction of its own, in which the planner does as it is told."""
        connection = self._connection
        with (
            translate_errors(),
            connection.pipeline(),
            connection.transaction(),
            psycopg.RawCursor(connection) as cursor,
        ):
            cursor.execute(_statement("page_settings"))
            yield cursor


def _keep_text_as_bytes(cursor: psycopg.RawCursor[Any]) -> None:
    """Lines are wanted as the bytes they came as, not as text to be encoded again."""
    cursor.adapters.register_loader("text", ByteaBinaryLoader)


def _statement(name: str) -> LiteralString:
    return load("workledger.training", name)


def _event(row: tuple[Any, ...]) -> LogEvent:
    position, event_type, entity_id, workflow_id, created_at, recorded_at, payload = row
    return LogEvent(
        position, event_type, entity_id, workflow_id, created_at, recorded_at, msgspec.Raw(payload.encode())
    )
