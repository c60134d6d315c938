-- Promise: what a workflow's tasks returned so far, by step key: the newest finished attempt of each.
-- Safe under concurrency: one snapshot.
SELECT DISTINCT ON (step_key) execution_id, workflow_id, task_name, status, input_data, output_data, error, retry_count, execution_time_ms,
       created_at, started_at, completed_at, kind, parent_execution_id, step_key, input_digest, worker_id,
       error_type, error_traceback, input_tokens, output_tokens, cost_usd, model, metadata
FROM task_executions
WHERE workflow_id = $1 AND step_key IS NOT NULL
ORDER BY step_key, (status = 'completed') DESC, retry_count DESC, created_at DESC
