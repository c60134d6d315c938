-- Promise: what the events at positions $1 + 1 to $2 say, counted: one row for each distinct combination, in the
-- order in which the combinations first appear. $3 and $4 are the negated bounds of the duration buckets of
-- workflows and of executions, ascending; `bounds_above` is how many bounds are not below the duration.
-- Safe under concurrency: positions up to the head never change. Names, kinds and models come from the state rows;
-- an event's row is committed with it, and these columns are final once the event that is counted here is there.
WITH seen AS (
    SELECT p.position, e.event_type, e.created_at,
           CASE WHEN e.event_type IN ('workflow.created', 'workflow.started', 'workflow.resumed',
               'workflow.completed', 'workflow.failed', 'workflow.cancelled') THEN e.entity_id END AS workflow_id,
           CASE WHEN e.event_type IN ('task.started', 'task.completed', 'task.failed', 'task.cancelled')
               THEN e.entity_id END AS execution_id,
           CASE WHEN e.event_type IN ('workflow.completed', 'workflow.failed', 'workflow.cancelled', 'task.started',
               'task.completed', 'task.failed', 'task.cancelled', 'message.added', 'feedback.recorded')
               THEN e.payload END AS payload
    FROM event_positions p
    JOIN events e ON e.event_id = p.event_id
    WHERE p.position > $1 AND p.position <= $2
), told AS (
    SELECT s.position, s.event_type,
           coalesce(w.name, x.task_name, CASE s.event_type WHEN 'feedback.recorded' THEN f.name END) AS name,
           x.kind,
           s.event_type = 'task.started' AND coalesce(f.retry_count, 0) > 0 AS is_retry,
           CASE s.event_type WHEN 'message.added' THEN s.payload #>> '{message,role}' END AS role,
           CASE WHEN s.event_type IN ('workflow.failed', 'task.failed') THEN f.error_type END AS error_type,
           CASE WHEN s.event_type <> 'task.started'
               AND (f.input_tokens IS NOT NULL OR f.output_tokens IS NOT NULL OR f.cost_usd IS NOT NULL)
               THEN coalesce(f.model, x.model) END AS model,
           CASE WHEN s.workflow_id IS NOT NULL OR s.execution_id IS NOT NULL
               THEN date_trunc('hour', s.created_at, 'UTC') END AS hour,
           CASE WHEN f.execution_time_ms IS NOT NULL THEN width_bucket(
               -f.execution_time_ms * 0.001,
               CASE WHEN s.workflow_id IS NOT NULL THEN $3::numeric[] ELSE $4::numeric[] END) END AS bounds_above,
           round(f.execution_time_ms * 0.001, 12) AS seconds,
           f.input_tokens, f.output_tokens, round(f.cost_usd, 15) AS cost_usd
    FROM seen s
    LEFT JOIN workflows w ON w.workflow_id = s.workflow_id
    LEFT JOIN task_executions x ON x.execution_id = s.execution_id
    LEFT JOIN LATERAL jsonb_to_record(s.payload) AS f (
        name text, retry_count integer, error_type text, execution_time_ms numeric, input_tokens bigint,
        output_tokens bigint, cost_usd numeric, model text) ON true
)
SELECT event_type, name, kind, is_retry, role, error_type, model, hour, bounds_above,
       count(*) AS events, sum(seconds) AS seconds, sum(input_tokens) AS input_tokens,
       sum(output_tokens) AS output_tokens, sum(cost_usd) AS cost_usd, min(position) AS first_position
FROM told
GROUP BY event_type, name, kind, is_retry, role, error_type, model, hour, bounds_above
ORDER BY first_position
