-- Promise: the events of one entity after a position, in the order of the log, one page.
-- Safe under concurrency: one snapshot; positions are only ever added above the head.
SELECT p.position, e.event_id::text, e.event_type, e.entity_type, e.entity_id, e.workflow_id, e.severity,
       e.created_at, e.recorded_at, e.schema_version, e.payload::text
FROM events e
JOIN event_positions p ON p.event_id = e.event_id
WHERE e.entity_type = $1 AND e.entity_id = $2 AND p.position > $3
ORDER BY p.position
LIMIT $4
