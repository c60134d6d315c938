-- Promise: workflows newest first, filtered; one page by keyset ($9, $10: the last row of the page above). Large values
-- are left out; `get_workflow` has them.
-- Safe under concurrency: one snapshot; a row's place in the order never changes.
SELECT w.workflow_id, w.name, w.workflow_type, w.status, w.current_step, w.total_steps, w.completed_steps, NULL::jsonb AS state_data,
       w.error, w.created_at, w.updated_at, w.started_at, w.completed_at, w.error_type, NULL AS error_traceback,
       NULL::jsonb AS input_data, NULL::jsonb AS output_data, w.metadata, w.tags, w.definition_version,
       w.parent_workflow_id, w.conversation_id, w.subject, w.trace_id, w.worker_id, w.attempt, w.execution_time_ms,
       w.cancel_requested_at
FROM workflows w
WHERE ($1::text IS NULL OR w.status = $1)
  AND ($2::text IS NULL OR w.name = $2)
  AND ($3::text IS NULL OR w.workflow_type = $3)
  AND ($4::text IS NULL OR (w.tags <> '{}' AND w.tags @> ARRAY[$4]))
  AND ($5::text IS NULL OR w.subject = $5)
  AND ($6::text IS NULL OR w.conversation_id = $6)
  AND ($7::timestamptz IS NULL OR w.created_at >= $7)
  AND ($8::timestamptz IS NULL OR w.created_at < $8)
  AND ($9::timestamptz IS NULL OR (w.created_at, w.workflow_id) < ($9, $10::text))
ORDER BY w.created_at DESC, w.workflow_id DESC
LIMIT $11
