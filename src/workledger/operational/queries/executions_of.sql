-- Promise: every attempt of one workflow, whole, in the order they began.
-- Safe under concurrency: one snapshot.
SELECT execution_id, workflow_id, task_name, status, input_data, output_data, error, retry_count, execution_time_ms,
       created_at, started_at, completed_at, kind, parent_execution_id, step_key, input_digest, worker_id,
       error_type, error_traceback, input_tokens, output_tokens, cost_usd, model, metadata
FROM task_executions WHERE workflow_id = $1
ORDER BY created_at, execution_id
