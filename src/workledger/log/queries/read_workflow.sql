-- Promise: the events of one workflow, in the order of the log; what has no position yet comes last.
-- Safe under concurrency: one snapshot.
SELECT p.position, e.event_id::text, e.event_type, e.entity_type, e.entity_id, e.workflow_id, e.severity,
       e.created_at, e.recorded_at, e.schema_version, e.payload::text
FROM events e
LEFT JOIN event_positions p ON p.event_id = e.event_id
WHERE e.workflow_id = $1
ORDER BY p.position NULLS LAST, e.event_id
