"""Every statement is in a file, is valid against the migrated schema, and is used."""

import re
from pathlib import Path

import pytest

import workledger
from workledger.postgres import migrate as migrations
from workledger.postgres.connection import connect
from workledger.postgres.statements import load

PACKAGE = Path(workledger.__file__).parent
FILES = sorted(PACKAGE.glob("*/queries/*.sql"))
UTILITY = re.compile(r"^(SET|LISTEN|CREATE|DROP|COPY|LOCK|VACUUM)\b", re.MULTILINE)
SOURCES = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))


def name(path):
    return f"{path.parent.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_statement_opens_with_its_promise(path):
    text = path.read_text()
    assert text.startswith("-- Promise: ")
    assert "-- Safe under concurrency: " in text


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_statement_is_used(path):
    assert re.search(rf"[\"']{path.stem}[\"']", SOURCES)


def test_every_statement_can_be_prepared(any_postgres_url):
    with connect(any_postgres_url) as connection:
        migrations.migrate(connection, schema="workledger")
        connection.execute(load("workledger.operational", "bulk_stage"))
        connection.execute(load("workledger.log", "make_archiving"))
        for name in ("make_leaving", "make_leaving_conversations", "make_leaving_feedback"):
            connection.execute(load("workledger.operational", name))
        for path in FILES:
            if UTILITY.search(path.read_text()):
                continue  # PREPARE takes no utility statements
            statement = path.read_text().replace("{partition}", "events")  # the one name that is put into a statement
            connection.execute(f"PREPARE checked AS {statement}", prepare=False)
            connection.execute("DEALLOCATE checked")


def test_no_python_file_builds_sql_from_parts():
    builders = re.compile(r"""execute\(\s*f["']""")
    assert [str(path) for path in PACKAGE.rglob("*.py") if builders.search(path.read_text())] == []


CAST = re.compile(r"(?:\w+\.)?(\w+)::(?:text|bigint|integer|numeric)\b(?:\[\])?(?:\s+AS\s+(\w+))?")
ORDER_BY = re.compile(r"ORDER BY\s+(.*?)(?:\bLIMIT\b|\bFOR\b|[);]|$)", re.DOTALL)


def sorted_casts(text):
    """What a statement sorts by that its select list has cast under the same name: PostgreSQL sorts by the cast."""
    statement = re.sub(r"--.*", "", text)
    cast = {alias or column for column, alias in CAST.findall(statement)}
    items = {item.split()[0] for clause in ORDER_BY.findall(statement) for item in clause.split(",") if item.strip()}
    return sorted(cast & items)


def test_no_statement_sorts_by_a_cast_where_it_means_the_column():
    """`SELECT tx::text AS tx … ORDER BY tx` sorts by the text: wrong, and many times slower."""
    assert sorted_casts("SELECT t.tx::text AS tx, n FROM t ORDER BY tx DESC, n LIMIT 1") == ["tx"]
    assert sorted_casts("SELECT e.event_id::text FROM e ORDER BY event_id") == ["event_id"]
    assert sorted_casts("SELECT e.event_id::text FROM e ORDER BY e.event_id") == []
    assert {name(path): found for path in FILES if (found := sorted_casts(path.read_text()))} == {}
