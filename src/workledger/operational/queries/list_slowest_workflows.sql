-- Promise: workflows that took longest, of those that began in a time ($1 to $2); one page by keyset ($4, $5).
-- Safe under concurrency: one snapshot.
SELECT w.workflow_id, w.name, w.workflow_type, w.status, w.current_step, w.total_steps, w.completed_steps, NULL::jsonb AS state_data,
       w.error, w.created_at, w.updated_at, w.started_at, w.completed_at, w.error_type, NULL AS error_traceback,
       NULL::jsonb AS input_data, NULL::jsonb AS output_data, w.metadata, w.tags, w.definition_version,
       w.parent_workflow_id, w.conversation_id, w.subject, w.trace_id, w.worker_id, w.attempt, w.execution_time_ms,
       w.cancel_requested_at
FROM workflows w
WHERE w.created_at >= $1 AND w.created_at < $2 AND w.execution_time_ms IS NOT NULL
  AND ($3::text IS NULL OR w.name = $3)
  AND ($4::double precision IS NULL OR (w.execution_time_ms, w.workflow_id) < ($4, $5::text))
ORDER BY w.execution_time_ms DESC, w.workflow_id DESC
LIMIT $6
