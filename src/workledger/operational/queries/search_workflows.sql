-- Promise: workflows whose name or error has the words of a query ($1) and words that begin so ($2, a tsquery), newest
-- first; one page by keyset ($6, $7). Every match is found through the index of words and then sorted, which is right
-- for rare words; `search_newest_workflows` has looked for frequent ones before.
-- Safe under concurrency: one snapshot; a row's place in the order never changes.
SELECT w.workflow_id, w.name, w.workflow_type, w.status, w.current_step, w.total_steps, w.completed_steps, NULL::jsonb AS state_data,
       w.error, w.created_at, w.updated_at, w.started_at, w.completed_at, w.error_type, NULL AS error_traceback,
       NULL::jsonb AS input_data, NULL::jsonb AS output_data, w.metadata, w.tags, w.definition_version,
       w.parent_workflow_id, w.conversation_id, w.subject, w.trace_id, w.worker_id, w.attempt, w.execution_time_ms,
       w.cancel_requested_at
FROM workflows w
WHERE search_words(w.name, w.error_type, w.error)
      @@ (websearch_to_tsquery('simple', $1) && coalesce(to_tsquery('simple', $2), ''))
  AND ($3::text IS NULL OR w.status = $3)
  AND ($4::timestamptz IS NULL OR w.created_at >= $4)
  AND ($5::timestamptz IS NULL OR w.created_at < $5)
  AND ($6::timestamptz IS NULL OR (w.created_at, w.workflow_id) < ($6, $7::text))
-- The sum keeps the planner, which takes rare words for frequent ones, from reading the newest rows one by one.
ORDER BY w.created_at + interval '0' DESC, w.workflow_id DESC
LIMIT $8
