-- Promise: the committed events that wait for a position, in the order in which they will get one.
-- Safe under concurrency: one snapshot, the caller's.
SELECT NULL::bigint AS position, e.event_id::text, e.event_type, e.entity_type, e.entity_id, e.workflow_id, e.severity,
       e.created_at, e.recorded_at, e.schema_version, e.payload::text
FROM event_inbox i
JOIN events e ON e.event_id = i.event_id
ORDER BY i.seq
