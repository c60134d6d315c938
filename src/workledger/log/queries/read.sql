-- Promise: the events after a position, in the order of the log; nothing is skipped, because positions are dense.
-- Safe under concurrency: positions are only ever added above the head.
SELECT p.position, e.event_id::text, e.event_type, e.entity_type, e.entity_id, e.workflow_id, e.severity,
       e.created_at, e.recorded_at, e.schema_version, e.payload::text
FROM event_positions p
JOIN events e ON e.event_id = p.event_id
WHERE p.position > $1 AND p.position <= $2
ORDER BY p.position
