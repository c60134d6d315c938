-- Promise: one workflow as it is stored, JSON as text, with what hangs on it counted.
-- Safe under concurrency: one snapshot.
SELECT w.workflow_id, w.name, w.workflow_type, w.status, w.current_step, w.total_steps, w.completed_steps,
       w.error, w.error_type, w.error_traceback, w.created_at, w.updated_at, w.started_at, w.completed_at,
       w.state_data::text AS state_data, w.input_data::text AS input_data, w.output_data::text AS output_data,
       w.metadata::text AS metadata, w.tags, w.definition_version, w.parent_workflow_id, w.conversation_id,
       w.subject, w.trace_id, w.worker_id, w.attempt, w.execution_time_ms, w.cancel_requested_at,
       k.hostname AS worker_hostname, k.pid AS worker_pid,
       CASE WHEN k.worker_id IS NULL THEN NULL
            WHEN k.lost_at IS NOT NULL THEN 'lost'
            WHEN k.stopped_at IS NOT NULL THEN 'stopped'
            WHEN k.heartbeat_at >= now() - k.lease_s * interval '1 second' THEN 'alive'
            ELSE 'overdue' END AS worker_state,
       (SELECT count(*) FROM task_executions x WHERE x.workflow_id = w.workflow_id) AS executions_total,
       (SELECT count(*) FROM events e WHERE e.workflow_id = w.workflow_id) AS events_total,
       (SELECT count(*) FROM workflows c WHERE c.parent_workflow_id = w.workflow_id) AS children_total
FROM workflows w
LEFT JOIN workers k ON k.worker_id = w.worker_id
WHERE w.workflow_id = $1
