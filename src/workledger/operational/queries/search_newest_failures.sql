-- Promise: of the newest $8 failed executions (of a time, of a page by keyset: $5, $6), those whose error or task has the
-- words of a query, newest failure first. When they fill the page, they are its answer: what is frequent is found here.
-- Safe under concurrency: one snapshot; an execution fails once.
SELECT x.execution_id, x.workflow_id, x.task_name, x.status, NULL::jsonb AS input_data, NULL::jsonb AS output_data, x.error,
       x.retry_count, x.execution_time_ms, x.created_at, x.started_at, x.completed_at, x.kind, x.parent_execution_id,
       x.step_key, x.input_digest, x.worker_id, x.error_type, NULL AS error_traceback, x.input_tokens,
       x.output_tokens, x.cost_usd, x.model, x.metadata
FROM (
    SELECT * FROM task_executions
    WHERE status = 'failed'
      AND ($3::timestamptz IS NULL OR completed_at >= $3)
      AND ($4::timestamptz IS NULL OR completed_at < $4)
      AND ($5::timestamptz IS NULL OR (completed_at, execution_id) < ($5, $6::text))
    ORDER BY completed_at DESC, execution_id DESC
    LIMIT $8) AS x
WHERE search_words(x.task_name, x.error_type, x.error)
      @@ (websearch_to_tsquery('simple', $1) && coalesce(to_tsquery('simple', $2), ''))
ORDER BY x.completed_at DESC, x.execution_id DESC
LIMIT $7
