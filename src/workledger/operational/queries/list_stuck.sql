-- Promise: running workflows of which nothing has been recorded for $1 seconds, neither progress nor any event, the
-- longest quiet first; one page by keyset ($2, $3).
-- Safe under concurrency: one snapshot, judged by the server's clock.
SELECT w.workflow_id, w.name, w.workflow_type, w.status, w.current_step, w.total_steps, w.completed_steps, NULL::jsonb AS state_data,
       w.error, w.created_at, w.updated_at, w.started_at, w.completed_at, w.error_type, NULL AS error_traceback,
       NULL::jsonb AS input_data, NULL::jsonb AS output_data, w.metadata, w.tags, w.definition_version,
       w.parent_workflow_id, w.conversation_id, w.subject, w.trace_id, w.worker_id, w.attempt, w.execution_time_ms,
       w.cancel_requested_at
FROM workflows w
WHERE w.status = 'running'
  AND w.updated_at < now() - $1::double precision * interval '1 second'
  AND NOT EXISTS (
      SELECT FROM events e
      WHERE e.workflow_id = w.workflow_id
        AND e.event_id >= uuid_floor(now() - $1::double precision * interval '1 second'))
  AND ($2::timestamptz IS NULL OR (w.updated_at, w.workflow_id) > ($2, $3::text))
ORDER BY w.updated_at, w.workflow_id
LIMIT $4
