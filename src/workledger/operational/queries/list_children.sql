-- Promise: the workflows that one workflow started, oldest first.
-- Safe under concurrency: one snapshot.
SELECT workflow_id, name, workflow_type, status, current_step, total_steps, completed_steps, NULL::jsonb AS state_data, error,
       created_at, updated_at, started_at, completed_at, error_type, NULL AS error_traceback, NULL::jsonb AS input_data, NULL::jsonb AS output_data,
       metadata, tags, definition_version, parent_workflow_id, conversation_id, subject, trace_id, worker_id,
       attempt, execution_time_ms, cancel_requested_at
FROM workflows
WHERE parent_workflow_id = $1
ORDER BY created_at, workflow_id
LIMIT $2
