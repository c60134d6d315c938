-- Promise: a workflow's new status (or progress) and the event that explains it appear together, and only from
-- a status, and in the attempt, that allow it.
-- Safe under concurrency: guard and update happen under the row lock; `attempt` is the fencing token, so a
-- worker that was away while its workflow was resumed elsewhere matches no row. The look into `events` makes a
-- repeated progress change a no-op.
WITH change AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS c (
        n integer, event_id uuid, event_type text, entity_type text, entity_id text, workflow_id text,
        severity text, created_at timestamptz, recorded_at timestamptz, expected text[], payload jsonb)
), changed AS (
    UPDATE workflows w
    SET status = CASE c.event_type
            WHEN 'workflow.completed' THEN 'completed'
            WHEN 'workflow.failed' THEN 'failed'
            WHEN 'workflow.cancelled' THEN 'cancelled'
            WHEN 'workflow.resumed' THEN 'running'
            ELSE w.status END,
        updated_at = coalesce(c.recorded_at, now()),
        started_at = CASE c.event_type
            WHEN 'workflow.resumed' THEN coalesce(w.started_at, c.created_at) ELSE w.started_at END,
        completed_at = CASE
            WHEN c.event_type IN ('workflow.completed', 'workflow.failed', 'workflow.cancelled') THEN c.created_at
            WHEN c.event_type = 'workflow.resumed' THEN NULL
            ELSE w.completed_at END,
        output_data = CASE c.event_type
            WHEN 'workflow.completed' THEN c.payload -> 'output'
            WHEN 'workflow.resumed' THEN NULL ELSE w.output_data END,
        error = CASE WHEN c.event_type IN ('workflow.failed', 'workflow.cancelled', 'workflow.resumed')
            THEN p.error ELSE w.error END,
        error_type = CASE WHEN c.event_type IN ('workflow.failed', 'workflow.cancelled', 'workflow.resumed')
            THEN p.error_type ELSE w.error_type END,
        error_traceback = CASE WHEN c.event_type IN ('workflow.failed', 'workflow.cancelled', 'workflow.resumed')
            THEN p.error_traceback ELSE w.error_traceback END,
        execution_time_ms = CASE WHEN c.event_type = 'workflow.resumed' THEN NULL
            ELSE coalesce(p.execution_time_ms, w.execution_time_ms) END,
        state_data = coalesce(p.state_data, w.state_data),
        current_step = coalesce(p.current_step, w.current_step),
        total_steps = CASE c.event_type WHEN 'workflow.completed' THEN greatest(w.total_steps, w.completed_steps)
            ELSE coalesce(p.total_steps, w.total_steps) END,
        conversation_id = coalesce(p.conversation_id, w.conversation_id),
        metadata = w.metadata || coalesce(p.metadata, '{}'),
        worker_id = CASE c.event_type WHEN 'workflow.resumed' THEN p.worker_id ELSE w.worker_id END,
        attempt = CASE c.event_type WHEN 'workflow.resumed' THEN w.attempt + 1 ELSE w.attempt END,
        cancel_requested_at = CASE c.event_type
            WHEN 'workflow.cancel_requested' THEN coalesce(w.cancel_requested_at, c.created_at)
            WHEN 'workflow.resumed' THEN NULL ELSE w.cancel_requested_at END
    FROM change c
    CROSS JOIN LATERAL jsonb_to_record(c.payload) AS p (
        error text, error_type text, error_traceback text, execution_time_ms double precision, state_data jsonb,
        current_step text, total_steps integer, conversation_id text, metadata jsonb, worker_id text,
        attempt integer)
    WHERE w.workflow_id = c.entity_id
      AND (c.expected IS NULL
           OR (w.status = ANY (c.expected) AND (p.attempt IS NULL OR p.attempt = w.attempt)
               AND NOT EXISTS (SELECT FROM events e WHERE e.event_id = c.event_id)))
    RETURNING c.event_id, c.event_type, c.entity_type, c.entity_id, c.workflow_id, c.severity, c.created_at,
              c.payload, c.recorded_at
), event AS (
    INSERT INTO events (
        event_id, event_type, entity_type, entity_id, workflow_id, severity, created_at, payload)
    SELECT c.event_id, c.event_type, c.entity_type, c.entity_id, c.workflow_id, c.severity, c.created_at, c.payload
    FROM changed c
    WHERE c.recorded_at IS NULL
    RETURNING event_id
)
INSERT INTO event_inbox (event_id) SELECT event_id FROM event
RETURNING event_id, NULL::bigint AS seq
