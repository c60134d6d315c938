"""The code in the documents about reading and about conversations runs as written."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from support.requirements import REPOSITORY
from workledger.sdk.reading import ReadingMixin

BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
QUERIES = (REPOSITORY / "docs/reference/queries.md").read_text()


def run(document, names):
    for code in BLOCK.findall((REPOSITORY / document).read_text()):
        exec(compile(code, document, "exec"), names)


def test_the_code_about_conversations_runs(ledger):
    run("docs/how-to/conversations.md", {"ledger": ledger})


def test_the_code_about_reading_runs(ledger):
    with pytest.raises(ValueError), ledger.start_workflow("w") as workflow:
        raise ValueError("no")
    monday = datetime.now(UTC) - timedelta(days=1)
    run("docs/reference/queries.md", {"ledger": ledger, "monday": monday, "workflow_id": workflow.workflow_id})


def test_the_sql_about_rates_runs(ledger):
    (statement,) = re.findall(r"```sql\n(.*?)```", QUERIES, re.DOTALL)
    with ledger.pool.connection() as connection:
        connection.execute(statement)


def test_every_reading_method_is_documented():
    methods = {name for name in vars(ReadingMixin) if not name.startswith("_")} - {"workflows"}
    assert {name for name in methods if f"`{name}(" not in QUERIES and f"`{name}`" not in QUERIES} == set()


def test_every_index_that_is_named_exists(ledger):
    named = set(re.findall(r"`((?:workflows|task_executions|events)_[a-z_]+)`", QUERIES))
    with ledger.pool.connection() as connection:
        found = connection.execute("SELECT indexname FROM pg_indexes WHERE schemaname = 'workledger'").fetchall()
    assert named - {name for (name,) in found} == set()
