"""Fill a project with workflows as they come in practice: by default 1 M workflows, 5 M executions, 12 M events.

The rows are made inside PostgreSQL, in the order of their time, spread over months of partitions: 40 names of
which few are frequent, 92 % completed, 5 % failed, the newest still running, five attempts a workflow, an event for
every beginning and end, each at its position in the log.

    python benchmarks/fill.py --scale 1000000 --url postgresql://… --project filled
"""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime, timedelta

import psycopg

from workledger.postgres.connection import connect
from workledger.postgres.migrate import migrate

CHUNK = 25_000

# The workflows of one chunk; everything else is made of them.
WORKFLOWS = """
CREATE TEMPORARY TABLE chunk ON COMMIT DROP AS
SELECT i, pick, created_at, name_rank,
       text_id(created_at) AS workflow_id,
       CASE WHEN i > %(total)s * (1 - %(running)s) OR pick < 0.0001 THEN 'running'
            WHEN pick < 0.003 THEN 'pending'
            WHEN pick < 0.053 THEN 'failed'
            WHEN pick < 0.078 THEN 'cancelled'
            ELSE 'completed' END AS status,
       5000 * exp(2 * random()) * (1 + name_rank / 8.0) AS took_ms
FROM (
    SELECT i, random() AS pick, floor(40 * random() ^ 2)::int AS name_rank,
           %(from)s::timestamptz
               + (%(to)s::timestamptz - %(from)s::timestamptz) * (i - random()) / %(total)s::float AS created_at
    FROM generate_series(%(first)s::bigint, %(last)s) AS i
    OFFSET 0
) AS drawn"""
STATES = """
INSERT INTO workflows (workflow_id, name, workflow_type, status, current_step, total_steps, completed_steps, error,
    error_type, created_at, updated_at, started_at, completed_at, input_data, output_data, tags, subject, worker_id,
    execution_time_ms)
SELECT workflow_id, 'workflow-' || name_rank, 'type-' || name_rank % 6, status, 'step-5', 5,
       CASE status WHEN 'completed' THEN 5 WHEN 'pending' THEN 0 ELSE 4 END,
       CASE status
           WHEN 'failed' THEN error_text(i)
           WHEN 'cancelled' THEN 'asked to stop' END,
       CASE status WHEN 'failed' THEN error_type(i) END,
       created_at, created_at + coalesce(ended, interval '0'), CASE WHEN status <> 'pending' THEN created_at END,
       created_at + ended,
       jsonb_build_object('topic', md5(i::text), 'customer', i % 10000, 'options', jsonb_build_array('a', 'b', i)),
       CASE status WHEN 'completed' THEN jsonb_build_object('answer', md5((i + 1)::text), 'rows', i % 700) END,
       CASE WHEN i % 3 = 0 THEN ARRAY['tag-' || i % 30, 'all'] ELSE '{}' END,
       CASE WHEN i % 5 < 3 THEN 'user-' || i % 10000 END, NULL,
       CASE WHEN status = 'completed' OR status = 'failed' THEN took_ms END
FROM chunk
CROSS JOIN LATERAL (SELECT CASE WHEN status IN ('completed', 'failed', 'cancelled')
    THEN took_ms * interval '1 millisecond' END AS ended) AS e"""
EXECUTIONS = """
CREATE TEMPORARY TABLE attempts ON COMMIT DROP AS
SELECT text_id(began) AS execution_id, workflow_id, n, began,
       began + took_ms / 5 * interval '1 millisecond' AS ended, took_ms / 5 AS took_ms, i,
       CASE WHEN n < 5 THEN 'completed' ELSE status END AS status,
       (ARRAY['task', 'llm', 'tool', 'llm', 'task'])[n] AS kind, name_rank
FROM chunk
CROSS JOIN generate_series(1, 5) AS n
CROSS JOIN LATERAL (SELECT created_at + (n - 1) * took_ms / 5 * interval '1 millisecond' AS began) AS b
WHERE status <> 'pending'"""
EXECUTION_STATES = """
INSERT INTO task_executions (execution_id, workflow_id, task_name, status, input_data, output_data, error, error_type,
    execution_time_ms, created_at, started_at, completed_at, kind, step_key, model, input_tokens, output_tokens,
    cost_usd)
SELECT execution_id, workflow_id, kind || '-' || n || '-' || name_rank % 10, status,
       jsonb_build_object('query', md5((i * 5 + n)::text), 'n', n),
       CASE status WHEN 'completed' THEN jsonb_build_object('text', md5((i * 7 + n)::text)) END,
       CASE status WHEN 'failed' THEN error_text(i) END,
       CASE status WHEN 'failed' THEN error_type(i) END,
       CASE WHEN status <> 'running' THEN took_ms END, began, began, CASE WHEN status <> 'running' THEN ended END,
       kind, 'step-' || n,
       CASE kind WHEN 'llm' THEN 'gpt-4o' END, CASE kind WHEN 'llm' THEN 900 + i % 300 END,
       CASE kind WHEN 'llm' THEN 100 + i % 90 END, CASE kind WHEN 'llm' THEN 0.003 END
FROM attempts"""
EVENTS = """
CREATE TEMPORARY TABLE facts ON COMMIT DROP AS
SELECT text_id(at)::uuid AS event_id, row_number() OVER (ORDER BY at, rank) AS n, *
FROM (
    SELECT created_at AS at, 1 AS rank,
           CASE status WHEN 'pending' THEN 'workflow.created' ELSE 'workflow.started' END AS event_type,
           'workflow' AS entity_type, workflow_id AS entity_id, workflow_id,
           jsonb_build_object('name', 'workflow-' || name_rank,
                              'input', jsonb_build_object('topic', md5(i::text), 'n', i)) AS payload
    FROM chunk
    UNION ALL
    SELECT created_at + took_ms * interval '1 millisecond', 4, 'workflow.' || status,
           'workflow', workflow_id, workflow_id,
           jsonb_build_object('execution_time_ms', took_ms, 'output', md5((i + 1)::text))
    FROM chunk WHERE status IN ('completed', 'failed', 'cancelled')
    UNION ALL
    SELECT began, 2, 'task.started', 'task', execution_id, workflow_id,
           jsonb_build_object('task_name', kind || '-' || n, 'kind', kind,
                              'input', jsonb_build_object('query', md5(i::text)))
    FROM attempts
    UNION ALL
    SELECT ended, 3, 'task.' || status, 'task', execution_id, workflow_id,
           jsonb_build_object('execution_time_ms', took_ms, 'output', jsonb_build_object('text', md5(i::text)))
    FROM attempts WHERE status <> 'running'
) AS f"""
EVENT_ROWS = """
INSERT INTO events (event_id, event_type, entity_type, entity_id, workflow_id, severity, created_at, recorded_at,
    payload)
SELECT event_id, event_type, entity_type, entity_id, workflow_id,
       CASE WHEN event_type LIKE '%failed' THEN 'error' ELSE 'info' END, at, at, payload
FROM facts ORDER BY n"""
POSITIONS = """
WITH placed AS (
    INSERT INTO event_positions (position, event_id)
    SELECT h.position + f.n, f.event_id FROM facts f CROSS JOIN log_head h
)
UPDATE log_head SET position = position + (SELECT count(*) FROM facts)"""
HELPERS = """
CREATE FUNCTION text_id(at timestamptz) RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-7' || substr(r, 1, 3) || '-8' || substr(r, 4, 3) || '-'
        || substr(r, 7, 12)
    FROM (SELECT lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') AS h,
                 md5(random()::text) AS r) AS parts
$$;
CREATE FUNCTION error_type(i bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT 'workload.errors.' || (ARRAY['TimeoutError', 'ValueError', 'RateLimited'])[1 + i % 3]
$$;
CREATE FUNCTION error_text(i bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT 'request ' || i || ' to ' || (ARRAY['billing', 'search', 'inventory', 'mail'])[1 + i % 4] || ' failed: '
        || (ARRAY['connection refused', 'deadline exceeded after 30 s', 'no such customer', 'quota used up',
                  'bad gateway'])[1 + i % 5]
$$"""


def fill(url: str, *, project: str, scale: int, months: int = 6, running: float = 0.002, told: bool = False) -> None:
    """Fill a project that is empty (it is made when it is missing) and analyse it.

    `running` is the share that is still at work.
    """
    until = datetime.now(UTC)
    since = until - timedelta(days=30 * months)
    with connect(url, schema=project) as connection:
        connection.prepare_threshold = None  # several statements at once, and none of them twice
        migrate(connection, schema=project)
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET session_replication_role = replica")  # the foreign keys hold by construction
        connection.execute(HELPERS)
        connection.execute("SELECT setseed(0.42)")
        for month in range(months + 2):
            connection.execute("SELECT ensure_event_partition(%s)", (since + timedelta(days=30 * month),))
        began = time.perf_counter()
        for first in range(1, scale + 1, CHUNK):
            last = min(first + CHUNK - 1, scale)
            bounds = {"from": since, "to": until, "total": scale, "first": first, "last": last, "running": running}
            _fill_chunk(connection, bounds)
            if told:
                print(f"{last:,} workflows in {time.perf_counter() - began:.0f} s", flush=True)
        connection.execute("DROP FUNCTION text_id, error_type, error_text")
        connection.execute("SET session_replication_role = origin")
        connection.execute("VACUUM (ANALYZE)")


def _fill_chunk(connection: psycopg.Connection, parameters: dict[str, object]) -> None:
    with connection.transaction():
        connection.execute(WORKFLOWS, parameters)
        for statement in (STATES, EXECUTIONS, EXECUTION_STATES, EVENTS, EVENT_ROWS, POSITIONS):
            connection.execute(statement)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--project", default="filled")
    parser.add_argument("--scale", type=int, default=1_000_000, help="workflows")
    parser.add_argument("--months", type=int, default=6)
    options = parser.parse_args()
    fill(options.url, project=options.project, scale=options.scale, months=options.months, told=True)


if __name__ == "__main__":
    main()
