-- Promise: an attempt's outcome and the event that reports it appear together, once, and only from a status
-- that allows it.
-- Safe under concurrency: the row lock of the update decides who finishes an attempt; whoever comes second
-- matches no row and writes no event.
WITH finished AS (
    UPDATE task_executions e
    SET status = CASE c.event_type
            WHEN 'task.completed' THEN 'completed' WHEN 'task.failed' THEN 'failed' ELSE 'cancelled' END,
        output_data = c.payload -> 'output',
        error = c.payload ->> 'error',
        error_type = c.payload ->> 'error_type',
        error_traceback = c.payload ->> 'error_traceback',
        execution_time_ms = (c.payload -> 'execution_time_ms')::double precision,
        completed_at = c.created_at,
        input_tokens = coalesce((c.payload -> 'input_tokens')::bigint, e.input_tokens),
        output_tokens = coalesce((c.payload -> 'output_tokens')::bigint, e.output_tokens),
        cost_usd = coalesce((c.payload -> 'cost_usd')::numeric, e.cost_usd),
        model = coalesce(c.payload ->> 'model', e.model)
    FROM jsonb_to_recordset($1::jsonb) AS c (
        event_id uuid, event_type text, entity_type text, entity_id text, severity text, created_at timestamptz,
        recorded_at timestamptz, expected text[], payload jsonb)
    WHERE e.execution_id = c.entity_id AND (c.expected IS NULL OR e.status = ANY (c.expected))
    RETURNING c.event_id, c.event_type, c.entity_type, c.entity_id, e.workflow_id, c.severity, c.created_at,
              c.payload, c.recorded_at,
              e.status = 'completed' AND e.kind = 'task' AND e.parent_execution_id IS NULL AS is_step
), progress AS (
    UPDATE workflows w
    SET completed_steps = w.completed_steps + 1, updated_at = coalesce(f.recorded_at, now())
    FROM finished f
    WHERE w.workflow_id = f.workflow_id AND f.is_step
    RETURNING w.workflow_id
), event AS (
    INSERT INTO events (
        event_id, event_type, entity_type, entity_id, workflow_id, severity, created_at, payload)
    SELECT f.event_id, f.event_type, f.entity_type, f.entity_id, f.workflow_id, f.severity, f.created_at, f.payload
    FROM finished f
    WHERE f.recorded_at IS NULL AND (SELECT count(*) FROM progress) >= 0
    RETURNING event_id
)
INSERT INTO event_inbox (event_id) SELECT event_id FROM event
RETURNING event_id, NULL::bigint AS seq
