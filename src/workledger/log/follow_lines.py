"""The log as lines of JSON, made by PostgreSQL: what only passes through is never parsed.

Archived events come as the same lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import psycopg

from workledger.log import archive_index
from workledger.log.archive_reads import numbered_lines
from workledger.log.reader import head
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = ["lines"]

# From so many events on, several processes are quicker than one, although they have to be started.
_LONG: Final = 50_000


def lines(connection: Connection, *, after: int = 0, upto: int | None = None) -> Iterator[bytes]:
    r"""The events after a position, in order, up to `upto` (default: the head when asked), each as a line of JSON.

    A line has the keys of an event, `position` to `payload`, and ends with `\n`: `file.writelines(lines(connection))`
    writes NDJSON. Nothing but the line at hand is in memory. The connection is busy until the last line is taken.
    """
    last = head(connection)[0] if upto is None else upto
    with translate_errors(), connection.transaction(), psycopg.Cursor(connection) as cursor:
        cursor.execute(load("workledger.log", "pin_plans"))
        if last - after >= _LONG:
            cursor.execute(load("workledger.log", "allow_helpers"))
        cursor.execute(load("workledger.log", "lock_events"))
        files = archive_index.between(connection, after=after, upto=last)
        with cursor.copy(load("workledger.log", "lines"), (after, last)) as copy:
            live = map(bytes, copy)
            yield from numbered_lines(connection, files, live, after=after, upto=last) if files else live
