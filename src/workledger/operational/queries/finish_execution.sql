-- Promise: an attempt's outcome and the event that reports it appear together, once, and only from a status
-- that allows it.
-- Safe under concurrency: the row lock of the update decides who finishes an attempt; whoever comes second
-- matches no row and writes no event.
WITH change AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS c (
        n integer, event_id uuid, event_type text, entity_type text, entity_id text, workflow_id text,
        severity text, created_at timestamptz, recorded_at timestamptz, expected text[], payload jsonb)
), finished AS (
    UPDATE task_executions e
    SET status = CASE c.event_type
            WHEN 'task.completed' THEN 'completed' WHEN 'task.failed' THEN 'failed' ELSE 'cancelled' END,
        output_data = c.payload -> 'output', error = p.error, error_type = p.error_type,
        error_traceback = p.error_traceback, execution_time_ms = p.execution_time_ms, completed_at = c.created_at,
        input_tokens = coalesce(p.input_tokens, e.input_tokens),
        output_tokens = coalesce(p.output_tokens, e.output_tokens),
        cost_usd = coalesce(p.cost_usd, e.cost_usd), model = coalesce(p.model, e.model)
    FROM change c
    CROSS JOIN LATERAL jsonb_to_record(c.payload) AS p (
        error text, error_type text, error_traceback text, execution_time_ms double precision,
        input_tokens bigint, output_tokens bigint, cost_usd numeric, model text)
    WHERE e.execution_id = c.entity_id AND (c.expected IS NULL OR e.status = ANY (c.expected))
    RETURNING c.event_id, c.recorded_at, e.workflow_id,
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
    SELECT c.event_id, c.event_type, c.entity_type, c.entity_id, f.workflow_id, c.severity, c.created_at, c.payload
    FROM change c JOIN finished f USING (event_id)
    LEFT JOIN progress w ON w.workflow_id = f.workflow_id
    WHERE c.recorded_at IS NULL
    RETURNING event_id
), queued AS (
    INSERT INTO event_inbox (event_id) SELECT event_id FROM event
)
SELECT event_id, NULL::bigint AS seq FROM event
