-- Promise: failed executions whose error or task has the words of a query ($1) and words that begin so ($2, a tsquery),
-- newest failure first; one page by keyset ($5, $6). Every match is found through the index of words and then sorted,
-- which is right for rare words; `search_newest_failures` has looked for frequent ones before.
-- Safe under concurrency: one snapshot; an execution fails once.
SELECT x.execution_id, x.workflow_id, x.task_name, x.status, NULL::jsonb AS input_data, NULL::jsonb AS output_data, x.error,
       x.retry_count, x.execution_time_ms, x.created_at, x.started_at, x.completed_at, x.kind, x.parent_execution_id,
       x.step_key, x.input_digest, x.worker_id, x.error_type, NULL AS error_traceback, x.input_tokens,
       x.output_tokens, x.cost_usd, x.model, x.metadata
FROM task_executions x
WHERE search_words(x.task_name, x.error_type, x.error)
      @@ (websearch_to_tsquery('simple', $1) && coalesce(to_tsquery('simple', $2), ''))
  AND x.status = 'failed'
  AND ($3::timestamptz IS NULL OR x.completed_at >= $3)
  AND ($4::timestamptz IS NULL OR x.completed_at < $4)
  AND ($5::timestamptz IS NULL OR (x.completed_at, x.execution_id) < ($5, $6::text))
-- The sum keeps the planner, which takes rare words for frequent ones, from reading the newest rows one by one.
ORDER BY x.completed_at + interval '0' DESC, x.execution_id DESC
LIMIT $7
