-- Promise: what a workflow, and the conversations it took part in, were made of up to position $3, in order, one page
-- after $2.
-- Safe under concurrency: one snapshot; what stands at a position never changes.
SELECT p.position, e.event_id::text, e.event_type, e.entity_type, e.entity_id, e.workflow_id, e.severity,
       e.created_at, e.recorded_at, e.schema_version, e.payload::text
FROM (
    SELECT event_id FROM events WHERE workflow_id = $1
    UNION
    SELECT e.event_id
    FROM events e
    JOIN (
        SELECT DISTINCT entity_id FROM events WHERE workflow_id = $1 AND entity_type = 'conversation'
        UNION
        SELECT DISTINCT payload ->> 'conversation_id' FROM events
        WHERE workflow_id = $1 AND event_type IN ('workflow.created', 'workflow.started', 'workflow.progressed')
    ) AS c ON c.entity_id = e.entity_id
    WHERE e.entity_type = 'conversation'
) AS h
JOIN events e ON e.event_id = h.event_id
JOIN event_positions p ON p.event_id = h.event_id
WHERE p.position > $2 AND p.position <= $3
ORDER BY p.position
LIMIT $4
