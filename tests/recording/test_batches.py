"""A batch costs what its changes cost: no statement pairs every change of it with every other."""

import orjson
import psycopg
import pytest

from support.changes import complete, done, make, start, task
from workledger.model.ids import new_id
from workledger.operational.apply import apply_in_transaction, plan, statement
from workledger.postgres.connection import connect

BATCH = 100


@pytest.fixture
def connection(ledger, database_url):
    with connect(database_url, recording=True) as connection:
        yield connection


def workflows_at(connection, step):
    """The changes that take the workflows of a batch to a step, after applying those before."""
    ids = [(new_id(), new_id()) for _ in range(BATCH)]
    steps = {
        "start_workflow": [start(workflow_id=workflow) for workflow, _ in ids],
        "start_execution": [task(workflow_id=workflow, execution_id=execution) for workflow, execution in ids],
        "finish_execution": [done(workflow_id=workflow, execution_id=execution) for workflow, execution in ids],
        "change_workflow": [complete(workflow_id=workflow) for workflow, _ in ids],
    }
    for name, changes in steps.items():
        if name == step:
            return changes
        assert all(outcome.applied for outcome in apply_in_transaction(connection, changes))
    return [make("start_conversation", conversation_id=workflow) for workflow, _ in ids]


@pytest.mark.parametrize(
    "step", ["start_workflow", "start_execution", "finish_execution", "change_workflow", "start_conversation"]
)
def test_a_statement_pairs_no_change_of_a_batch_with_every_other(connection, step):
    changes = workflows_at(connection, step)
    ((name, group),) = plan(changes)
    assert name == step
    rows = orjson.dumps([change.row(n) for n, change in enumerate(group)]).decode()
    with psycopg.RawCursor(connection) as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement(name)}", (rows,))
        plans = [cursor.fetchone()[0][0]["Plan"]]
    tried = 0
    while plans:
        node = plans.pop()
        plans += node.get("Plans", [])
        tried += node.get("Rows Removed by Join Filter", 0)
    assert tried < 5 * BATCH, "the statement joins the batch with itself"
