"""The schema: migrated once, by whoever comes first, and never edited afterwards."""

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from workledger.errors import ConfigurationError, SchemaError
from workledger.postgres import migrate as migrations
from workledger.postgres.connection import connect

COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
WHERE table_schema = %s AND table_name NOT LIKE 'events\\_%%' ORDER BY 1, 2"""
INDEXES = "SELECT replace(indexdef, %s, '') FROM pg_indexes WHERE schemaname = %s ORDER BY 1"


def shape(connection, schema):
    columns = connection.execute(COLUMNS, (schema,)).fetchall()
    indexes = connection.execute(INDEXES, (f"{schema}.", schema)).fetchall()
    return columns, indexes


def test_an_empty_database_gets_every_migration_and_a_second_run_none(any_postgres_url):
    with connect(any_postgres_url) as connection:
        applied = migrations.migrate(connection, schema="workledger")
        assert [migration.version for migration in applied] == list(range(1, len(applied) + 1))
        assert migrations.migrate(connection, schema="workledger") == ()
        migrations.check_current(connection)


def test_the_script_for_a_dba_makes_the_same_schema(any_postgres_url):
    with connect(any_postgres_url, schema="ours") as connection:
        migrations.migrate(connection, schema="ours")
        script = migrations.script(schema="theirs").replace("\\set ON_ERROR_STOP on\n", "")
        connection.execute(script, prepare=False)
        assert shape(connection, "ours") == shape(connection, "theirs")
    with connect(any_postgres_url, schema="theirs") as connection:
        assert migrations.pending(connection) == ()


def test_eight_processes_that_migrate_at_once_apply_each_migration_once(database_url):
    def run(_):
        with connect(database_url) as connection:
            return len(migrations.migrate(connection, schema="workledger"))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(run, range(8))) == len(migrations.available())


def test_an_edited_migration_is_refused(database_url):
    with connect(database_url) as connection:
        migrations.migrate(connection, schema="workledger")
        connection.execute("UPDATE migrations SET checksum = 'x' WHERE version = 2")
        with pytest.raises(SchemaError, match="0002_log was edited"):
            migrations.pending(connection)


def test_a_schema_of_a_newer_version_is_refused(database_url):
    with connect(database_url) as connection:
        migrations.migrate(connection, schema="workledger")
        connection.execute("INSERT INTO migrations (version, name, checksum) VALUES (9999, 'later', 'x')")
        with pytest.raises(SchemaError, match="9999"):
            migrations.pending(connection)


def test_a_migration_that_fails_leaves_the_schema_as_it_was(database_url, monkeypatch):
    broken = migrations.Migration(version=9999, name="broken", text="CREATE TABLE half (); SELECT 1/0;", checksum="x")
    every = (*migrations.available(), broken)
    monkeypatch.setattr(migrations, "available", lambda: every)
    with connect(database_url) as connection:
        with pytest.raises(Exception, match="division by zero"):
            migrations.migrate(connection, schema="workledger")
        assert connection.execute("SELECT to_regclass('half')").fetchone() == (None,)
        assert set(migrations.applied(connection)) == {m.version for m in every} - {9999}


@pytest.mark.parametrize("name", ["", "a-b", "a b", "x" * 64, 'a"b', "naïve"])
def test_a_project_that_cannot_be_a_schema_is_refused(name, database_url):
    with pytest.raises(ConfigurationError, match="schema name"):
        connect(database_url, schema=name)


def test_a_database_that_cannot_hold_every_text_is_refused(postgres18_url):
    with psycopg.connect(postgres18_url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0")
        try:
            with pytest.raises(ConfigurationError, match="encoding LATIN1"):
                connect(urlunsplit(urlsplit(postgres18_url)._replace(path="/latin")))
        finally:
            admin.execute("DROP DATABASE latin WITH (FORCE)")


def test_migration_files_are_numbered_without_gaps():
    assert [migration.version for migration in migrations.available()] == list(
        range(1, len(migrations.available()) + 1)
    )
