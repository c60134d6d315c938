-- Promise: one workflow, whole.
-- Safe under concurrency: one snapshot.
SELECT workflow_id, name, workflow_type, status, current_step, total_steps, completed_steps, state_data, error,
       created_at, updated_at, started_at, completed_at, error_type, error_traceback, input_data, output_data,
       metadata, tags, definition_version, parent_workflow_id, conversation_id, subject, trace_id, worker_id,
       attempt, execution_time_ms, cancel_requested_at
FROM workflows WHERE workflow_id = $1
