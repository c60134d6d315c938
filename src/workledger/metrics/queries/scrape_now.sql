-- Promise: what is going on now, as gauges; costs index reads over what is open, whatever the history.
-- Safe under concurrency: one statement, one snapshot.
SELECT 'workledger_workflows_open' AS name, ARRAY[status] AS labels,
       (SELECT count(*) FROM workflows w WHERE w.status = open.status)::double precision AS value
FROM (VALUES ('pending'), ('running')) AS open (status)
UNION ALL
SELECT 'workledger_task_executions_open', ARRAY[status],
       (SELECT count(*) FROM task_executions e WHERE e.status = open.status)
FROM (VALUES ('pending'), ('running')) AS open (status)
UNION ALL
SELECT 'workledger_oldest_running_age_seconds', ARRAY['workflow'], coalesce(greatest(extract(epoch FROM now() - (
    SELECT started_at FROM workflows WHERE status = 'running' ORDER BY started_at, workflow_id LIMIT 1)), 0), 0)
UNION ALL
SELECT 'workledger_oldest_running_age_seconds', ARRAY['task'], coalesce(greatest(extract(epoch FROM now() - (
    SELECT started_at FROM task_executions WHERE status = 'running' ORDER BY started_at, execution_id LIMIT 1)), 0), 0)
UNION ALL
SELECT 'workledger_workers', ARRAY[state], count(w.worker_id)
FROM (VALUES ('alive'), ('overdue'), ('lost')) AS known (state)
LEFT JOIN workers w ON state = CASE
    WHEN w.stopped_at IS NOT NULL THEN NULL
    WHEN w.lost_at IS NOT NULL THEN CASE WHEN w.lost_at > now() - interval '1 hour' THEN 'lost' END
    WHEN w.heartbeat_at < now() - w.lease_s * interval '1 second' THEN 'overdue'
    ELSE 'alive' END
GROUP BY state
UNION ALL
SELECT 'workledger_log_head_position', '{}', position FROM log_head
UNION ALL
SELECT 'workledger_log_unsequenced_events', '{}', count(*) FROM event_inbox
UNION ALL
SELECT 'workledger_oldest_unarchived_event_age_seconds', '{}', coalesce(greatest(extract(epoch FROM now() - (
    SELECT uuid_time(event_id) FROM events ORDER BY event_id LIMIT 1)), 0), 0)
UNION ALL
SELECT 'workledger_consumer_position', ARRAY[c.name], c.position
FROM (SELECT name, position FROM consumers ORDER BY position, name LIMIT 100) c
UNION ALL
SELECT 'workledger_consumer_lag_positions', ARRAY[c.name], h.position - c.position
FROM (SELECT name, position FROM consumers ORDER BY position, name LIMIT 100) c CROSS JOIN log_head h
UNION ALL
SELECT 'workledger_training_lag_positions', ARRAY[substr(c.name, 1 + length('training:'))], h.position - c.position
FROM (
    SELECT name, position FROM consumers WHERE starts_with(name, 'training:') ORDER BY position, name LIMIT 100
) c CROSS JOIN log_head h
