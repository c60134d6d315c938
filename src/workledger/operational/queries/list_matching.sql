-- Promise: workflows with the words of a query ($7, a tsquery) in their name or error, or one of the ids $8, newest first,
-- filtered as in `list_workflows`; one page by keyset ($9, $10). Every match is found through the index of words and
-- then sorted, which is right for rare words; `list_newest_matching` has looked for frequent ones before.
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
  AND ($9::timestamptz IS NULL OR (created_at, workflow_id) < ($9, $10::text))
-- The sum keeps the planner, which takes rare words for frequent ones, from reading the newest rows one by one.
ORDER BY created_at + interval '0' DESC, workflow_id DESC
LIMIT $11
