"""The log as lines of JSON, made by PostgreSQL: what only passes through is never parsed.

Making the lines is what costs, so two processes of PostgreSQL make them where there is much to read. They take turns by
blocks of positions, because several processes under one statement wait for one another: each may be ahead of the order
by no more than the 64 KiB of its queue. Archived events come as the same lines.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Final

import psycopg

from workledger.log import archive_index
from workledger.log.archive_reads import numbered_lines
from workledger.log.reader import head
from workledger.postgres.blocking import Repeated
from workledger.postgres.connection import Connection, translate_errors
from workledger.postgres.statements import load

__all__ = ["lines"]

_BLOCK: Final = 2000
# From so many events on, a second connection is worth its opening.
_LONG: Final = 20_000


def lines(
    connection: Connection,
    *,
    after: int = 0,
    upto: int | None = None,
    connect: Callable[[], Connection] | None = None,
) -> Iterator[bytes]:
    r"""The events after a position, in order, up to `upto` (default: the head when asked), each as a line of JSON.

    A line has the keys of an event, `position` to `payload`, and ends with `\n`: `file.writelines(lines(connection))`
    writes NDJSON. A few thousand lines are in memory. The connection is busy until the last line is taken. `connect`
    opens another one like it, for long readings.
    """
    last = head(connection)[0] if upto is None else upto
    with translate_errors(), ExitStack() as stack:
        connections = [connection]
        if connect is not None and last - after >= _LONG:
            connections.append(stack.enter_context(closing(connect())))
        for one in connections:
            stack.enter_context(one.transaction())
            with psycopg.Cursor(one) as cursor:
                cursor.execute(load("workledger.log", "pin_plans"))
                cursor.execute(load("workledger.log", "lock_events"))
        files = archive_index.between(connection, after=after, upto=last)
        pool = stack.enter_context(ThreadPoolExecutor(len(connections), thread_name_prefix="workledger-lines"))
        live = _lines(pool, connections, after, last)
        yield from numbered_lines(connection, files, live, after=after, upto=last) if files else live


def _lines(pool: ThreadPoolExecutor, connections: list[Connection], after: int, upto: int) -> Iterator[bytes]:
    """Have each connection make a block while those before are given out."""
    statement = load("workledger.log", "lines")
    makers = deque(Repeated(one, statement) for one in connections)
    coming: deque[Future[bytes]] = deque()
    for start in range(after, upto, _BLOCK):
        # Once all are at work, who made the block that is taken is the next to make one.
        block = coming.popleft().result() if len(coming) == len(makers) else b""
        coming.append(pool.submit(_block, makers[0], start, min(start + _BLOCK, upto)))
        makers.rotate(-1)
        yield from block.splitlines(keepends=True)
    while coming:
        yield from coming.popleft().result().splitlines(keepends=True)


def _block(maker: Repeated, after: int, upto: int) -> bytes:
    value = maker.run(after, upto).get_value(0, 0)
    return b"" if value is None else value + b"\n"
