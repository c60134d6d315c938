-- Promise: for each of the executions $1, the event that started it, if its position is at most $2.
-- Safe under concurrency: what the log has at or below a position never changes.
SELECT DISTINCT ON (e.entity_id) p.position, e.event_type, e.entity_id, e.workflow_id,
       to_char(e.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
       to_char(e.recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
       coalesce(e.payload, '{}')::text
FROM events e
JOIN event_positions p ON p.event_id = e.event_id
WHERE e.entity_type = 'task' AND e.entity_id = ANY ($1::text[]) AND e.event_type = 'task.started'
  AND p.position <= $2
ORDER BY e.entity_id, p.position DESC
