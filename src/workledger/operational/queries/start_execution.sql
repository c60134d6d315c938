-- Promise: an attempt's row and its `task.started` event appear together, and only in a running workflow that nobody
-- has asked to stop, in the attempt of the workflow that its caller knows.
-- Safe under concurrency: a repeated change meets ON CONFLICT and does nothing; the event depends on the update
-- of the workflow row, so the log has the changes of one workflow in the order of that row's lock. What was started is
-- looked up in an array: joined to the changes, a batch would cost the square of its size.
WITH change AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS c (
        n integer, event_id uuid, event_type text, entity_type text, entity_id text, workflow_id text,
        severity text, created_at timestamptz, recorded_at timestamptz, expected text[], payload jsonb)
), started AS (
    INSERT INTO task_executions (
        execution_id, workflow_id, task_name, kind, status, input_data, retry_count, parent_execution_id,
        step_key, input_digest, worker_id, model, metadata, created_at, started_at)
    SELECT c.entity_id, c.workflow_id, c.payload ->> 'task_name', c.payload ->> 'kind', 'running',
           c.payload -> 'input', coalesce((c.payload -> 'retry_count')::integer, 0),
           c.payload ->> 'parent_execution_id', c.payload ->> 'step_key', c.payload ->> 'input_digest',
           c.payload ->> 'worker_id', c.payload ->> 'model', coalesce(c.payload -> 'metadata', '{}'),
           c.created_at, c.created_at
    FROM change c
    JOIN workflows w ON w.workflow_id = c.workflow_id
        AND (c.expected IS NULL
             OR (w.status = ANY (c.expected) AND w.cancel_requested_at IS NULL
                 AND (NOT c.payload ? 'attempt' OR (c.payload -> 'attempt')::integer = w.attempt)))
    ON CONFLICT (execution_id) DO NOTHING
    RETURNING execution_id, kind = 'task' AND parent_execution_id IS NULL AS is_step
), progress AS (
    UPDATE workflows w
    SET current_step = c.payload ->> 'task_name', updated_at = coalesce(c.recorded_at, now())
    FROM change c
    WHERE w.workflow_id = c.workflow_id AND c.entity_id = ANY (ARRAY(SELECT execution_id FROM started WHERE is_step))
    RETURNING w.workflow_id
), event AS (
    INSERT INTO events (
        event_id, event_type, entity_type, entity_id, workflow_id, severity, created_at, payload)
    SELECT c.event_id, c.event_type, c.entity_type, c.entity_id, c.workflow_id, c.severity, c.created_at, c.payload
    FROM change c
    WHERE c.recorded_at IS NULL AND c.entity_id = ANY (ARRAY(SELECT execution_id FROM started))
      AND (SELECT count(*) FROM progress) >= 0
    RETURNING event_id
)
INSERT INTO event_inbox (event_id) SELECT event_id FROM event
RETURNING event_id, NULL::bigint AS seq
