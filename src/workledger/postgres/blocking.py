"""A statement whose whole answer is read in one call, while the other threads of the process go on.

The driver reads an answer piece by piece, and between two pieces it needs the interpreter, which a busy thread gives
up every five milliseconds: an answer of fifty pieces takes a quarter of a second then, whatever the server needed. A
call straight into libpq comes back once, with all of it.
"""

from __future__ import annotations

import psycopg
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGresult

from workledger.postgres.connection import Connection

__all__ = ["BlockingStatement"]


class BlockingStatement:
    """A statement that is run again and again on a connection, within one transaction, by one thread at a time.

    Nothing else is run there meanwhile. A signal waits until the server has answered.
    """

    def __init__(self, connection: Connection, statement: str) -> None:
        self._connection = connection
        self._statement = statement.encode()
        self._is_prepared = False

    def run(self, *parameters: object) -> PGresult:
        """Run it and give its rows, in binary. Raises the driver's errors."""
        connection = self._connection.pgconn
        if not self._is_prepared:
            # Without a name it belongs to nobody, and ends with the next one: poolers know none but those.
            self._checked(connection.prepare(b"", self._statement), ExecStatus.COMMAND_OK)
            self._is_prepared = True
        values = [str(value).encode() for value in parameters]
        return self._checked(connection.exec_prepared(b"", values, result_format=1), ExecStatus.TUPLES_OK)

    def _checked(self, result: PGresult, expected: ExecStatus) -> PGresult:
        if result.status == expected:
            return result
        if self._connection.pgconn.status != ConnStatus.OK:
            raise psycopg.OperationalError(result.get_error_message("utf-8"))
        raise psycopg.errors.error_from_result(result, "utf-8")
