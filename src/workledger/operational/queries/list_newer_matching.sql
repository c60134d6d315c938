-- Promise: the workflows just above a row ($9, $10), found as in `list_matching`, nearest first: the page above.
-- Safe under concurrency: one snapshot.
SELECT workflow_id, name, workflow_type, status, current_step, total_steps, completed_steps, NULL::jsonb AS state_data, error,
       created_at, updated_at, started_at, completed_at, error_type, NULL AS error_traceback, NULL::jsonb AS input_data, NULL::jsonb AS output_data,
       metadata, tags, definition_version, parent_workflow_id, conversation_id, subject, trace_id, worker_id,
       attempt, execution_time_ms, cancel_requested_at
FROM workflows
WHERE ($1::text IS NULL OR status = $1)
  AND ($2::text IS NULL OR name = $2)
  AND ($3::text IS NULL OR workflow_type = $3)
  AND ($4::text IS NULL OR tags @> ARRAY[$4])
  AND ($5::text IS NULL OR subject = $5)
  AND ($6::timestamptz IS NULL OR created_at >= $6)
  AND (search_words(name, error_type, error) @@ to_tsquery('simple', $7) OR workflow_id = ANY ($8::text[]))
  AND (created_at, workflow_id) > ($9::timestamptz, $10::text)
ORDER BY created_at + interval '0', workflow_id
LIMIT $11
