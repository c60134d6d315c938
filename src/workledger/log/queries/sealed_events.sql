-- Promise: what stands at positions $1 to $2, in order, with all that its digest is made of; the columns of an event
-- that is gone are NULL.
-- Safe under concurrency: one snapshot; what stands at a position never changes.
SELECT p.position, p.event_id::text, e.event_type, e.entity_type, e.entity_id, e.workflow_id, e.severity,
       to_char(e.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS created_at,
       to_char(e.recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS recorded_at,
       e.schema_version, e.payload::text, e.salt, x.commitment, e.event_id IS NOT NULL AS is_there
FROM event_positions p
LEFT JOIN LATERAL (SELECT * FROM events WHERE events.event_id = p.event_id OFFSET 0) AS e ON true
LEFT JOIN erased_payloads x ON x.event_id = p.event_id
WHERE p.position BETWEEN $1 AND $2
ORDER BY p.position
