-- Promise: the events that moved the workflows $1 themselves, up to position $2, in the order of the log.
-- Safe under concurrency: what the log has at or below a position never changes.
SELECT p.position, e.event_type, e.entity_id, e.workflow_id,
       to_char(e.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
       to_char(e.recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
       coalesce(e.payload, '{}')::text
FROM events e
JOIN event_positions p ON p.event_id = e.event_id
WHERE e.entity_type = 'workflow' AND e.entity_id = ANY ($1::text[]) AND p.position <= $2
  AND e.event_type IN ('workflow.created', 'workflow.started', 'workflow.progressed', 'workflow.cancel_requested',
                       'workflow.completed', 'workflow.failed', 'workflow.cancelled', 'workflow.resumed')
ORDER BY p.position
