"""Statements written against the original schema (REQUIREMENTS) run unchanged."""

import pytest

ORIGINAL = {
    "workflows": "workflow_id name workflow_type status current_step total_steps completed_steps state_data error"
    " created_at updated_at started_at completed_at metadata",
    "task_executions": "execution_id workflow_id task_name status input_data output_data error retry_count"
    " execution_time_ms created_at started_at completed_at",
    "events": "event_id event_type entity_type entity_id payload severity created_at timestamp",
}
INDEXES = [
    "idx_events_entity",
    "idx_events_type",
    "idx_events_created",
    "idx_workflows_status",
    "idx_task_executions_workflow",
    "idx_task_executions_status",
]
QUERIES = [
    "SELECT * FROM workflows WHERE status = 'running'",
    "SELECT * FROM workflows WHERE status = 'failed' ORDER BY created_at DESC LIMIT 10",
    "SELECT status, COUNT(*) FROM workflows GROUP BY status",
    "SELECT w.name, t.task_name, t.status FROM workflows w JOIN task_executions t ON w.workflow_id = t.workflow_id"
    " WHERE t.status = 'running'",
    "SELECT * FROM events WHERE entity_type = 'workflow' AND entity_id = 'w1' ORDER BY created_at",
    "SELECT * FROM events WHERE event_type = 'task.failed' AND created_at > NOW() - INTERVAL '1 day'",
    "SELECT event_id, timestamp FROM events ORDER BY timestamp DESC LIMIT 5",
    "SELECT task_name, AVG(execution_time_ms), MAX(retry_count) FROM task_executions GROUP BY task_name",
    "SELECT workflow_id, state_data->>'step', metadata->>'owner' FROM workflows",
    "SELECT completed_at - started_at AS duration FROM workflows WHERE completed_at IS NOT NULL",
]
WRITES = [
    "INSERT INTO workflows (workflow_id, name, workflow_type, total_steps) VALUES ('w1', 'n', 't', 3)",
    "UPDATE workflows SET status = 'running', started_at = NOW(), updated_at = NOW() WHERE workflow_id = 'w1'",
    "INSERT INTO task_executions (execution_id, workflow_id, task_name) VALUES ('e1', 'w1', 't')",
    "INSERT INTO events (event_id, event_type, entity_type, entity_id)"
    " VALUES ('01a20c34-81f8-7c85-95da-d5a16d6f3f8c', 'workflow.noted', 'workflow', 'w1')",
]


@pytest.fixture
def connection(ledger):
    with ledger.pool.connection() as connection:
        yield connection


@pytest.mark.parametrize("table", ORIGINAL)
def test_every_original_column_is_there(connection, table):
    rows = connection.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'workledger' AND table_name = %s",
        (table,),
    ).fetchall()
    assert set(ORIGINAL[table].split()) <= {name for (name,) in rows}


@pytest.mark.parametrize("index", INDEXES)
def test_every_original_index_is_there(connection, index):
    assert connection.execute("SELECT to_regclass(%s)", (index,)).fetchone() != (None,)


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_written_against_the_original_schema_runs(connection, query):
    connection.execute(query).fetchall()


def test_writes_written_against_the_original_schema_run(connection):
    for statement in WRITES:
        connection.execute(statement)
    assert connection.execute("SELECT status, total_steps, completed_steps, state_data FROM workflows").fetchone() == (
        "running",
        3,
        0,
        {},
    )
