-- Promise: the attempts of one workflow in the order they began, as they are stored, JSON as text; one page after an
-- attempt ($2).
-- Safe under concurrency: one snapshot; an attempt's place in the order never changes.
SELECT execution_id, workflow_id, task_name, status, input_data::text AS input_data, output_data::text AS output_data,
       error, retry_count, execution_time_ms, created_at, started_at, completed_at, kind, parent_execution_id,
       step_key, worker_id, error_type, error_traceback, input_tokens, output_tokens, cost_usd, model,
       metadata::text AS metadata
FROM task_executions
WHERE workflow_id = $1
  AND ($2::text IS NULL
       OR (created_at, execution_id) > (SELECT created_at, execution_id FROM task_executions WHERE execution_id = $2))
ORDER BY created_at, execution_id
LIMIT $3
