-- Promise: the final rows of attempts that began and ended in this batch: what `start_execution` and
-- `finish_execution` would have left, written once.
-- Safe under concurrency: an id that is taken is a unique violation and undoes the whole batch.
INSERT INTO task_executions (
    execution_id, workflow_id, task_name, status, input_data, output_data, error, retry_count, execution_time_ms,
    created_at, started_at, completed_at, kind, parent_execution_id, step_key, input_digest, worker_id, error_type,
    error_traceback, input_tokens, output_tokens, cost_usd, model, metadata)
SELECT s.entity_id, s.workflow_id, s.payload ->> 'task_name', split_part(f.event_type, '.', 2), s.payload -> 'input',
       f.payload -> 'output', f.payload ->> 'error', coalesce((s.payload -> 'retry_count')::integer, 0),
       (f.payload -> 'execution_time_ms')::double precision, s.created_at, s.created_at, f.created_at,
       s.payload ->> 'kind', s.payload ->> 'parent_execution_id', s.payload ->> 'step_key',
       s.payload ->> 'input_digest', s.payload ->> 'worker_id', f.payload ->> 'error_type',
       f.payload ->> 'error_traceback', (f.payload -> 'input_tokens')::bigint, (f.payload -> 'output_tokens')::bigint,
       (f.payload -> 'cost_usd')::numeric, coalesce(f.payload ->> 'model', s.payload ->> 'model'),
       coalesce(s.payload -> 'metadata', '{}')
FROM bulk_changes s
JOIN bulk_changes f ON f.entity_id = s.entity_id AND f.entity_type = 'task' AND f.event_type <> 'task.started'
WHERE s.event_type = 'task.started'
