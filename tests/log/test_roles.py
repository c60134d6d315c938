"""The roles can do what they are for, and nobody can change what is written."""

import subprocess
import sys
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege, RestrictViolation

import workledger
from support import changes
from workledger.errors import ConfigurationError
from workledger.flows.log_to_metrics import catch_up
from workledger.flows.verify import DATABASE_CHECKS, check_database
from workledger.log import consumers, reader
from workledger.log.roles import make_roles, roles_of
from workledger.postgres.connection import connect
from workledger.postgres.migrate import migrate

GUARDED = ["events", "event_positions", "seals", "seal_keys", "erased_payloads"]
ROLES = ["workledger_owner", "workledger_writer", "workledger_reader"]


@pytest.fixture
def guarded(any_log):
    """A log with roles and something in every table that must not change."""
    any_log.make_key()
    any_log.fill(30)
    any_log.seal(size=10)
    with any_log.attack() as connection:
        connection.execute(
            "SELECT erase_event_payloads(array_agg(event_id), array_agg('{}'::jsonb), gen_random_uuid())"
            " FROM event_positions WHERE position = 3"
        )
    make_roles(any_log.connection, schema="workledger")
    return any_log


def tables(connection) -> list[str]:
    partitions = connection.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'events'::regclass"
    )
    return [*GUARDED, *(name for (name,) in partitions.fetchall())]


def role_url(url: str, role: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}options=-crole%3D{role}"


def refused(connection, statement: str) -> bool:
    try:
        with connection.transaction():
            connection.execute(statement)
    except (InsufficientPrivilege, RestrictViolation):
        return True
    return False


def is_empty(connection, table: str) -> bool:
    return connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


@pytest.mark.parametrize("role", ROLES)
def test_no_role_can_update_delete_or_truncate_what_is_append_only(guarded, role):
    guarded.connection.execute(f"SET ROLE {role}")
    columns = {"events": "severity = 'debug'", "event_positions": "position = position + 100", "seals": "number = 9"}
    columns |= {"seal_keys": "name = 'x'", "erased_payloads": "erased_at = now()"}
    for table in tables(guarded.connection):
        change = columns.get(table, "severity = 'debug'")
        assert refused(guarded.connection, f"TRUNCATE {table} CASCADE"), table
        for statement in (f"UPDATE {table} SET {change}", f"DELETE FROM {table}"):
            assert refused(guarded.connection, statement) or is_empty(guarded.connection, table), statement
    guarded.connection.execute("RESET ROLE")
    assert guarded.kinds() == [("erasure.unexplained", guarded.kinds()[0][1])]


@pytest.mark.parametrize("role", [None, *ROLES])
def test_not_even_a_session_that_passes_for_a_replica_can(guarded, role):
    guarded.connection.execute("SET session_replication_role = replica")
    if role is not None:
        guarded.connection.execute(f"SET ROLE {role}")
    for table in tables(guarded.connection):
        assert (
            refused(guarded.connection, f"DELETE FROM {table}")
            or not guarded.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        )
        assert refused(guarded.connection, f"TRUNCATE {table} CASCADE")


@pytest.mark.parametrize("role", ["workledger_writer", "workledger_reader"])
def test_who_does_not_own_the_log_cannot_open_its_ways_out(guarded, role):
    guarded.connection.execute(f"SET ROLE {role}")
    guarded.connection.execute("SET workledger.way_out = 'erase'")
    statements = [
        "SELECT forget_positions(1, 10)",
        "SELECT erase_event_payloads('{}', '{}', gen_random_uuid())",
        "UPDATE events SET payload = '{}'",
        "ALTER TABLE events DISABLE TRIGGER ALL",
        "DROP TABLE events_2026_01",
        "CREATE TABLE ours ()",
        "SET session_replication_role = replica",
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
    ]
    for statement in statements:
        with pytest.raises((InsufficientPrivilege, psycopg.errors.UndefinedTable)), guarded.connection.transaction():
            guarded.connection.execute(statement)


def test_a_writer_records_everything_there_is_to_record(any_postgres_url, tmp_path):
    with connect(any_postgres_url) as owner:
        migrate(owner, schema="workledger")
        make_roles(owner, schema="workledger")
    with workledger.open(role_url(any_postgres_url, "workledger_writer"), home=tmp_path) as ledger:
        with ledger.start_workflow("import", input={"large": "x" * 100_000}, tags=["t"]) as run:
            with run.task("load", input=[1]) as task:
                task.output = {"large": "y" * 100_000}
            run.message("user", "hello")
            run.event("cache.hit", {"n": 1})
            run.feedback("helpful", score=1)
        with pytest.raises(ZeroDivisionError), ledger.start_workflow("failing"):
            _ = 1 / 0
    with connect(role_url(any_postgres_url, "workledger_writer")) as writer:
        assert writer.execute("SELECT current_user").fetchone() == ("workledger_writer",)
        assert workledger_loops(writer)
    with connect(any_postgres_url) as owner:
        checks = list(check_database(owner, schema="workledger", names=DATABASE_CHECKS))
        assert [fault for check in checks for fault in check.faults] == []
        assert {name for (name,) in owner.execute("SELECT DISTINCT event_type FROM events")} >= {
            "workflow.failed", "message.added", "feedback.recorded", "worker.started", "task.completed", "cache.hit",
        }  # fmt: skip


def workledger_loops(connection) -> bool:
    """Everything that loops, done once as this role: sequencing, counting, sealing, keeping a cursor."""
    from datetime import timedelta

    from workledger.flows.seal import seal_once
    from workledger.log.sequencer import sequence

    placed = sequence(connection, schema="workledger")
    counted = catch_up(connection)
    sealed = seal_once(connection, schema="workledger", max_age=timedelta(0))
    with connection.transaction():
        moved = consumers.save(connection, "mailer", 5)
    return placed == counted == sealed.last_position and moved


def test_a_writer_has_partitions_made_where_it_may_not_make_tables(guarded):
    guarded.connection.execute("SET ROLE workledger_writer")
    old = changes.make(
        "record_event", event_type="e", entity_type="t", entity_id="i", at=datetime(2019, 5, 4, tzinfo=UTC)
    )
    guarded.record(old)
    guarded.connection.execute("RESET ROLE")
    owner, acl = guarded.connection.execute(
        "SELECT relowner::regrole::text, relacl::text FROM pg_class WHERE relname = 'events_2019_05'"
    ).fetchone()
    assert owner == "workledger_owner"
    assert "workledger_reader=r/" in acl
    assert guarded.kinds() == [("erasure.unexplained", guarded.kinds()[0][1])]


def test_a_function_with_its_owners_rights_cannot_be_led_astray_by_a_search_path(guarded):
    guarded.connection.execute("CREATE SCHEMA IF NOT EXISTS trap")
    guarded.connection.execute("CREATE TABLE trap.events (LIKE workledger.events)")
    guarded.connection.execute("GRANT ALL ON SCHEMA trap TO workledger_writer")
    guarded.connection.execute("SET ROLE workledger_writer")
    guarded.connection.execute("SET search_path = trap, workledger")
    assert guarded.connection.execute("SELECT ensure_event_partition('2018-03-01')").fetchone() == ("events_2018_03",)
    assert guarded.connection.execute("SELECT to_regclass('workledger.events_2018_03')").fetchone() != (None,)
    assert guarded.connection.execute("SELECT to_regclass('trap.events_2018_03')").fetchone() == (None,)


def test_a_reader_reads_everything_and_writes_nothing(guarded):
    guarded.connection.execute("SET ROLE workledger_reader")
    assert len(reader.read(guarded.connection, after=0)) == guarded.head
    assert guarded.kinds() == [("erasure.unexplained", guarded.kinds()[0][1])]
    for statement in (
        "INSERT INTO events (event_id, event_type) VALUES (gen_random_uuid(), 'x')",
        "UPDATE workflows SET status = 'running'",
        "INSERT INTO event_inbox (event_id) VALUES (gen_random_uuid())",
        "SELECT ensure_event_partition(now())",
        "SELECT position FROM log_head FOR UPDATE",
    ):
        with pytest.raises(InsufficientPrivilege), guarded.connection.transaction():
            guarded.connection.execute(statement)


def test_making_roles_again_changes_nothing_and_takes_back_what_was_granted_too_much(guarded):
    rights = "SELECT relname, relacl::text, relowner::regrole::text FROM pg_class ORDER BY oid"
    before = guarded.connection.execute(rights).fetchall()
    guarded.connection.execute("GRANT UPDATE, DELETE ON events TO workledger_writer, workledger_reader")
    make_roles(guarded.connection, schema="workledger")
    assert guarded.connection.execute(rights).fetchall() == before


def test_roles_of_several_projects_do_not_meet(guarded):
    with connect(guarded.url, schema="other") as other:
        migrate(other, schema="other")
        make_roles(other, schema="other")
        other.execute("SET ROLE workledger_writer")
        with pytest.raises(InsufficientPrivilege):
            other.execute("SELECT * FROM other.events")


def test_a_migration_after_the_roles_is_followed_by_them(guarded):
    guarded.connection.execute("CREATE TABLE later (n integer)")
    make_roles(guarded.connection, schema="workledger")
    guarded.connection.execute("SET ROLE workledger_writer")
    guarded.connection.execute("INSERT INTO later VALUES (1)")
    guarded.connection.execute("UPDATE later SET n = 2")


def test_a_project_whose_name_leaves_no_room_for_roles_is_refused():
    with pytest.raises(ConfigurationError, match="at most 56"):
        roles_of("p" * 57)
    assert roles_of("research").writer == "research_writer"


def test_the_log_does_not_depend_on_the_state(log):
    keys = log.connection.execute(
        "SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint WHERE contype = 'f'"
    ).fetchall()
    tables = {"events", "event_positions", "event_inbox", "log_head", "consumers", "seals", "erased_payloads"}
    assert [(table, other) for table, other in keys if table in tables and other != "seal_keys"] == []


def test_seals_need_no_cryptography_until_they_are_signed():
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "import workledger.flows.seal\n"
        "try:\n    import workledger.log.keys\n"
        "except ImportError as error:\n    print(type(error).__name__, error.extra)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "MissingExtra seals"
