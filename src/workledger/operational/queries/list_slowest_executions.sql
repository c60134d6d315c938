-- Promise: executions that took longest, of those that ended in a time ($1 to $2); one page by keyset ($5, $6).
-- Safe under concurrency: one snapshot.
SELECT x.execution_id, x.workflow_id, x.task_name, x.status, NULL::jsonb AS input_data, NULL::jsonb AS output_data, x.error,
       x.retry_count, x.execution_time_ms, x.created_at, x.started_at, x.completed_at, x.kind, x.parent_execution_id,
       x.step_key, x.input_digest, x.worker_id, x.error_type, NULL AS error_traceback, x.input_tokens,
       x.output_tokens, x.cost_usd, x.model, x.metadata
FROM task_executions x
WHERE x.completed_at >= $1 AND x.completed_at < $2 AND x.execution_time_ms IS NOT NULL
  AND ($3::text IS NULL OR x.task_name = $3)
  AND ($4::text IS NULL OR x.kind = $4)
  AND ($5::double precision IS NULL OR (x.execution_time_ms, x.execution_id) < ($5, $6::text))
ORDER BY x.execution_time_ms DESC, x.execution_id DESC
LIMIT $7
