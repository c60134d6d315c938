"""A write joins the caller's transaction: the application's rows and the record of its work commit together."""

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.orm import Session

from workledger.errors import InvalidInput, InvalidTransition


@pytest.fixture
def application(ledger, database_url):
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS public.orders (id int)")
        connection.commit()
        yield connection


def orders(ledger):
    with ledger.pool.connection() as connection:
        return connection.execute("SELECT count(*) FROM public.orders").fetchone()[0]


def work(ledger, connection, workflow_id="w"):
    with ledger.joining(connection), ledger.start_workflow("order", workflow_id=workflow_id) as run:
        run.message("user", "hi")
        with run.task("insert") as task:
            task.output = 1


def test_a_commit_keeps_both(ledger, application):
    application.execute("INSERT INTO orders VALUES (1)")
    work(ledger, application)
    assert ledger.workflows() == []
    application.commit()
    assert ledger.get_workflow("w").status == "completed"
    assert len(ledger.messages("w")) == 1
    assert orders(ledger) == 1


def test_a_rollback_takes_both_back(ledger, application):
    application.execute("INSERT INTO orders VALUES (1)")
    work(ledger, application)
    application.rollback()
    assert ledger.workflows() == []
    assert orders(ledger) == 0
    work(ledger, application)
    application.commit()
    assert ledger.get_workflow("w").status == "completed"


def test_the_callers_search_path_is_left_as_it_was(ledger, application):
    before = application.execute("SHOW search_path").fetchone()
    work(ledger, application)
    assert application.execute("SHOW search_path").fetchone() == before


def test_a_refused_change_leaves_the_callers_transaction_usable(ledger, application):
    with ledger.start_workflow("w", workflow_id="w"):
        pass
    application.execute("INSERT INTO orders VALUES (1)")
    with ledger.joining(application), pytest.raises(InvalidTransition):
        ledger.cancel("w")
    application.commit()
    assert orders(ledger) == 1


def test_a_sqlalchemy_connection_and_a_session_can_be_joined(ledger, application, database_url):
    info = psycopg.conninfo.conninfo_to_dict(database_url)
    url = sqlalchemy.URL.create(
        "postgresql+psycopg", username=info.get("user"), password=info.get("password"), database=info["dbname"]
    )
    engine = sqlalchemy.create_engine(
        url, connect_args={key: info[key] for key in ("host", "port") if key in info}, poolclass=sqlalchemy.NullPool
    )
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("INSERT INTO orders VALUES (1)"))
        work(ledger, connection, "by-connection")
    with Session(engine) as session, session.begin():
        session.execute(sqlalchemy.text("INSERT INTO orders VALUES (2)"))
        work(ledger, session, "by-session")
    assert orders(ledger) == 2
    assert {workflow.workflow_id for workflow in ledger.workflows()} == {"by-connection", "by-session"}
    engine.dispose()


def test_a_connection_without_a_transaction_is_refused(ledger, database_url):
    with (
        psycopg.connect(database_url, autocommit=True) as connection,
        pytest.raises(InvalidInput, match="autocommit"),
        ledger.joining(connection),
    ):
        pass


def test_something_that_is_no_connection_is_refused(ledger):
    with pytest.raises(InvalidInput, match="cannot join a builtins.str"), ledger.joining("postgresql://"):
        pass
