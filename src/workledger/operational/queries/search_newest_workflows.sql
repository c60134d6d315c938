-- Promise: of the newest $9 workflows (of a status, of a time, of a page by keyset: $6, $7), those whose name or error has
-- the words of a query, newest first. When they fill the page, they are its answer: what is frequent is found here.
-- Safe under concurrency: one snapshot; a row's place in the order never changes.
SELECT w.workflow_id, w.name, w.workflow_type, w.status, w.current_step, w.total_steps, w.completed_steps, NULL::jsonb AS state_data,
       w.error, w.created_at, w.updated_at, w.started_at, w.completed_at, w.error_type, NULL AS error_traceback,
       NULL::jsonb AS input_data, NULL::jsonb AS output_data, w.metadata, w.tags, w.definition_version,
       w.parent_workflow_id, w.conversation_id, w.subject, w.trace_id, w.worker_id, w.attempt, w.execution_time_ms,
       w.cancel_requested_at
FROM (
    SELECT * FROM workflows
    WHERE ($3::text IS NULL OR status = $3)
      AND ($4::timestamptz IS NULL OR created_at >= $4)
      AND ($5::timestamptz IS NULL OR created_at < $5)
      AND ($6::timestamptz IS NULL OR (created_at, workflow_id) < ($6, $7::text))
    ORDER BY created_at DESC, workflow_id DESC
    LIMIT $9) AS w
WHERE search_words(w.name, w.error_type, w.error)
      @@ (websearch_to_tsquery('simple', $1) && coalesce(to_tsquery('simple', $2), ''))
ORDER BY w.created_at DESC, w.workflow_id DESC
LIMIT $8
