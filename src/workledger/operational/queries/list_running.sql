-- Promise: what is running now, oldest first; one page by keyset. Work of a worker whose lease has passed is left out.
-- Safe under concurrency: one snapshot; leases are judged by the server's clock.
SELECT w.workflow_id, name, workflow_type, status, current_step, total_steps, completed_steps, NULL::jsonb AS state_data, error,
       created_at, updated_at, w.started_at, completed_at, error_type, NULL AS error_traceback, NULL::jsonb AS input_data, NULL::jsonb AS output_data,
       metadata, tags, definition_version, parent_workflow_id, conversation_id, subject, trace_id, w.worker_id,
       attempt, execution_time_ms, cancel_requested_at
FROM workflows w
WHERE w.status = 'running'
  AND NOT EXISTS (
      SELECT FROM workers k
      WHERE k.worker_id = w.worker_id
        AND (k.stopped_at IS NOT NULL OR k.lost_at IS NOT NULL
             OR k.heartbeat_at < now() - k.lease_s * interval '1 second'))
  AND ($1::timestamptz IS NULL OR (w.started_at, w.workflow_id) > ($1, $2::text))
ORDER BY w.started_at, w.workflow_id
LIMIT $3
