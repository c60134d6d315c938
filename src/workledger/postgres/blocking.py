"""Statements straight through libpq: the whole answer comes in one call, while the other threads of the process go on.

The driver reads an answer piece by piece, and between two pieces it needs the interpreter, which a busy thread gives
up every five milliseconds: an answer of fifty pieces takes a quarter of a second then, whatever the server needed. A
call into libpq comes back once, with all of it. A signal waits until then.

Everything here is for a connection in the hands of one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from weakref import WeakKeyDictionary

import psycopg
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from workledger.postgres.connection import Connection

__all__ = ["Repeated", "can_run_alone", "run_alone", "run_prepared"]

_NO_SUCH_STATEMENT: Final = b"26000"

_prepared: WeakKeyDictionary[Connection, set[bytes]] = WeakKeyDictionary()


class Repeated:
    """A statement that is run again and again within one transaction; nothing else is run there meanwhile."""

    def __init__(self, connection: Connection, statement: str) -> None:
        self._connection = connection
        self._statement = statement.encode()
        self._is_prepared = False

    def run(self, *parameters: object) -> PGresult:
        """Run it and give its rows, in binary. Raises the driver's errors."""
        connection = self._connection.pgconn
        if not self._is_prepared:
            # Without a name it belongs to nobody, and ends with the next one: poolers know none but those.
            _checked(self._connection, connection.prepare(b"", self._statement), ExecStatus.COMMAND_OK)
            self._is_prepared = True
        result = connection.exec_prepared(b"", _encoded(parameters), result_format=1)
        return _checked(self._connection, result, ExecStatus.TUPLES_OK)


def run_prepared(connection: Connection, name: str, statement: str, parameters: Sequence[bytes]) -> PGresult:
    """Run a statement, prepared on first use, unless the connection does without; gives whatever comes of it."""
    if connection.prepare_threshold is None:
        return connection.pgconn.exec_params(statement.encode(), parameters)
    label = name.encode()
    if label in _prepared.setdefault(connection, set()):
        result = connection.pgconn.exec_prepared(label, parameters)
        # psycopg deallocates every prepared statement when it rolls back.
        if result.error_field(DiagnosticField.SQLSTATE) != _NO_SUCH_STATEMENT:
            return result
    _prepare(connection, label, statement)
    return connection.pgconn.exec_prepared(label, parameters)


def can_run_alone(connection: Connection) -> bool:
    """Whether `run_alone` can have a transaction of its own here, and a prepared statement."""
    state = connection.pgconn
    return (
        connection.prepare_threshold is not None
        and state.transaction_status == TransactionStatus.IDLE
        and state.pipeline_status == PipelineStatus.OFF
    )


def run_alone(connection: Connection, name: str, statement: str, *parameters: object, settings: str) -> PGresult:
    """Run a statement in a transaction of its own, after a query that makes its settings; its rows, in binary.

    Raises the driver's errors.
    """
    label, values = name.encode(), _encoded(parameters)
    if label not in _prepared.setdefault(connection, set()):
        _prepare(connection, label, statement)
    result = _in_transaction(connection, settings, label, values)
    if result.error_field(DiagnosticField.SQLSTATE) == _NO_SUCH_STATEMENT:
        _prepare(connection, label, statement)
        result = _in_transaction(connection, settings, label, values)
    return _checked(connection, result, ExecStatus.TUPLES_OK)


def _in_transaction(connection: Connection, settings: str, label: bytes, values: Sequence[bytes]) -> PGresult:
    server = connection.pgconn
    try:
        _checked(connection, server.exec_(b"BEGIN;" + settings.encode()), ExecStatus.TUPLES_OK)
        result = server.exec_prepared(label, values, result_format=1)
    except BaseException:
        server.exec_(b"ROLLBACK")
        raise
    server.exec_(b"COMMIT")  # of a transaction that failed, it is the end as well
    return result


def _prepare(connection: Connection, label: bytes, statement: str) -> None:
    _checked(connection, connection.pgconn.prepare(label, statement.encode()), ExecStatus.COMMAND_OK)
    _prepared[connection].add(label)


def _checked(connection: Connection, result: PGresult, expected: ExecStatus) -> PGresult:
    if result.status == expected:
        return result
    if connection.pgconn.status != ConnStatus.OK:
        raise psycopg.OperationalError(result.get_error_message("utf-8"))
    raise psycopg.errors.error_from_result(result, "utf-8")


def _encoded(parameters: Sequence[object]) -> list[bytes]:
    return [str(value).encode() for value in parameters]
