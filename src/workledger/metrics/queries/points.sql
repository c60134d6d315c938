-- Promise: each event at positions $1 + 1 to $2 with its numbers, in the order of the log, at the time of its client's
-- clock in milliseconds.
-- Safe under concurrency: positions up to the head never change. Names, kinds and models come from the state rows;
-- an event's row is committed with it, and these columns are final once the event that is told here is there.
WITH seen AS (
    SELECT p.position, e.event_type, e.severity, floor(extract(epoch FROM e.created_at) * 1000)::bigint AS at_ms,
           CASE WHEN e.event_type IN ('workflow.completed', 'workflow.failed', 'workflow.cancelled')
               THEN e.entity_id END AS workflow_id,
           CASE WHEN e.event_type IN ('task.completed', 'task.failed', 'task.cancelled')
               THEN e.entity_id END AS execution_id,
           CASE WHEN e.event_type IN ('workflow.completed', 'workflow.failed', 'workflow.cancelled', 'task.completed',
               'task.failed', 'task.cancelled', 'message.added', 'feedback.recorded') THEN e.payload END AS payload
    FROM event_positions p
    JOIN events e ON e.event_id = p.event_id
    WHERE p.position > $1 AND p.position <= $2
)
SELECT s.position, s.event_type, s.severity, s.at_ms, coalesce(w.name, x.task_name, f.name) AS name, x.kind,
       CASE s.event_type WHEN 'message.added' THEN s.payload #>> '{message,role}' END AS role,
       f.error_type, coalesce(f.model, x.model) AS model, (f.execution_time_ms * 0.001)::double precision AS seconds,
       x.retry_count, f.input_tokens, f.output_tokens, f.cost_usd, f.score
FROM seen s
LEFT JOIN workflows w ON w.workflow_id = s.workflow_id
LEFT JOIN task_executions x ON x.execution_id = s.execution_id
LEFT JOIN LATERAL jsonb_to_record(s.payload) AS f (
    name text, error_type text, execution_time_ms numeric, input_tokens bigint, output_tokens bigint,
    cost_usd double precision, model text, score double precision) ON true
ORDER BY s.position
