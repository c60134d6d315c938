-- Promise: failed executions, newest failure first; one page by keyset.
-- Safe under concurrency: one snapshot.
SELECT execution_id, workflow_id, task_name, status, NULL::jsonb AS input_data, NULL::jsonb AS output_data, error, retry_count, execution_time_ms,
       created_at, started_at, completed_at, kind, parent_execution_id, step_key, input_digest, worker_id,
       error_type, NULL AS error_traceback, input_tokens, output_tokens, cost_usd, model, metadata
FROM task_executions
WHERE status = 'failed'
  AND ($1::timestamptz IS NULL OR completed_at >= $1)
  AND ($2::timestamptz IS NULL OR (completed_at, execution_id) < ($2, $3::text))
ORDER BY completed_at DESC, execution_id DESC
LIMIT $4
