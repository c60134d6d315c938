-- Promise: the final rows of workflows that began and ended in this batch: what `start_workflow`, the step counters
-- and `change_workflow` would have left, written once.
-- Safe under concurrency: an id that is taken is a unique violation and undoes the whole batch.
WITH steps AS (
    SELECT s.workflow_id,
           (array_agg(s.payload ->> 'task_name' ORDER BY s.n DESC))[1] AS current_step,
           count(*) FILTER (WHERE f.event_type = 'task.completed') AS completed_steps
    FROM bulk_changes s
    JOIN bulk_changes f ON f.entity_id = s.entity_id AND f.entity_type = 'task' AND f.event_type <> 'task.started'
    WHERE s.event_type = 'task.started' AND s.payload ->> 'kind' = 'task' AND NOT s.payload ? 'parent_execution_id'
    GROUP BY s.workflow_id
)
INSERT INTO workflows (
    workflow_id, name, workflow_type, status, current_step, total_steps, completed_steps, state_data, error,
    created_at, updated_at, started_at, completed_at, error_type, error_traceback, input_data, output_data, metadata,
    tags, definition_version, parent_workflow_id, conversation_id, subject, trace_id, worker_id, execution_time_ms)
SELECT s.entity_id, p.name, p.workflow_type, split_part(e.event_type, '.', 2), t.current_step,
       CASE e.event_type WHEN 'workflow.completed'
           THEN greatest(coalesce(p.total_steps, 0), coalesce(t.completed_steps, 0))
           ELSE coalesce(p.total_steps, 0) END,
       coalesce(t.completed_steps, 0), coalesce(p.state_data, '{}'), e.payload ->> 'error', s.created_at, now(),
       s.created_at, e.created_at, e.payload ->> 'error_type', e.payload ->> 'error_traceback', s.payload -> 'input',
       CASE e.event_type WHEN 'workflow.completed' THEN e.payload -> 'output' END, coalesce(p.metadata, '{}'),
       coalesce(p.tags, '{}'), p.definition_version, p.parent_workflow_id, p.conversation_id, p.subject, p.trace_id,
       p.worker_id, (e.payload -> 'execution_time_ms')::double precision
FROM bulk_changes s
JOIN bulk_changes e ON e.entity_id = s.entity_id
    AND e.event_type IN ('workflow.completed', 'workflow.failed', 'workflow.cancelled')
CROSS JOIN LATERAL jsonb_to_record(s.payload) AS p (
    name text, workflow_type text, total_steps integer, state_data jsonb, metadata jsonb, tags text[],
    definition_version text, parent_workflow_id text, conversation_id text, subject text, trace_id text,
    worker_id text)
LEFT JOIN steps t ON t.workflow_id = s.entity_id
WHERE s.event_type = 'workflow.started'
