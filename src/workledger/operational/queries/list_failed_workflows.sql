-- Promise: failed workflows, newest failure first; one page by keyset.
-- Safe under concurrency: one snapshot.
SELECT workflow_id, name, workflow_type, status, current_step, total_steps, completed_steps, NULL::jsonb AS state_data, error,
       created_at, updated_at, started_at, completed_at, error_type, NULL AS error_traceback, NULL::jsonb AS input_data, NULL::jsonb AS output_data,
       metadata, tags, definition_version, parent_workflow_id, conversation_id, subject, trace_id, worker_id,
       attempt, execution_time_ms, cancel_requested_at
FROM workflows
WHERE status = 'failed'
  AND ($1::timestamptz IS NULL OR completed_at >= $1)
  AND ($2::timestamptz IS NULL OR (completed_at, workflow_id) < ($2, $3::text))
ORDER BY completed_at DESC, workflow_id DESC
LIMIT $4
