"""Statements straight through libpq: what they give, what they raise, and what they leave behind."""

import psycopg
import pytest

from workledger.postgres.blocking import Repeated, can_run_alone, run_alone, run_prepared
from workledger.postgres.connection import connect

SETTINGS = "SELECT set_config('jit', 'off', true)"
NUMBERS = "SELECT n FROM generate_series(1, $1::int) AS n"


@pytest.fixture
def connection(any_postgres_url):
    with connect(any_postgres_url) as connection:
        yield connection


def numbers(connection, count):
    result = run_alone(connection, "numbers", NUMBERS, count, settings=SETTINGS)
    return [int.from_bytes(result.get_value(row, 0), "big") for row in range(result.ntuples)]


def test_a_statement_is_run_alone_and_its_settings_end_with_it(connection):
    connection.execute("SET jit = on")
    assert [numbers(connection, count) for count in (3, 0, 1)] == [[1, 2, 3], [], [1]]
    assert connection.execute("SHOW jit").fetchone() == ("on",)
    assert can_run_alone(connection)


def test_what_fails_raises_and_leaves_the_connection_usable(connection):
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        numbers(connection, "many")
    with pytest.raises(psycopg.errors.SyntaxError):
        run_alone(connection, "wrong", "SELEC 1", settings=SETTINGS)
    with pytest.raises(psycopg.errors.UndefinedObject):
        run_alone(connection, "numbers", NUMBERS, 1, settings="SELECT set_config('no_such_setting', 'x', true)")
    assert numbers(connection, 2) == [1, 2]


def test_a_statement_that_somebody_deallocated_is_prepared_again(connection):
    assert numbers(connection, 1) == [1]
    connection.execute("DEALLOCATE ALL")
    assert numbers(connection, 2) == [1, 2]
    connection.execute("DEALLOCATE ALL")
    assert run_prepared(connection, "numbers", NUMBERS, [b"3"]).ntuples == 3


def test_inside_of_a_transaction_or_behind_a_pooler_nothing_is_run_alone(connection):
    with connection.transaction():
        assert not can_run_alone(connection)
    with connection.pipeline():
        assert not can_run_alone(connection)
    connection.prepare_threshold = None
    assert not can_run_alone(connection)
    assert run_prepared(connection, "numbers", NUMBERS, [b"3"]).ntuples == 3


def test_a_connection_that_is_lost_is_told_apart_from_a_wrong_statement(connection, any_postgres_url):
    numbers(connection, 1)
    with connect(any_postgres_url) as other:
        other.execute("SELECT pg_terminate_backend(%s, 60000)", (connection.info.backend_pid,))
    with pytest.raises(psycopg.OperationalError):
        numbers(connection, 1)


def test_a_statement_is_repeated_in_a_transaction(connection):
    with connection.transaction():
        repeated = Repeated(connection, NUMBERS)
        assert [repeated.run(count).ntuples for count in (3, 0, 7)] == [3, 0, 7]
    with pytest.raises(psycopg.errors.SyntaxError):
        Repeated(connection, "SELEC 1").run()
