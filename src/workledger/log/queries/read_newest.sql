-- Promise: the newest events of the log, newest first, filtered; one page by position.
-- Safe under concurrency: one snapshot.
SELECT p.position, e.event_id::text, e.event_type, e.entity_type, e.entity_id, e.workflow_id, e.severity,
       e.created_at, e.recorded_at, e.schema_version, e.payload::text
FROM event_positions p
JOIN events e ON e.event_id = p.event_id
WHERE p.position < coalesce($1::bigint, 9223372036854775807)
  AND ($2::text IS NULL OR e.event_type = $2)
  AND ($3::text IS NULL OR e.entity_type = $3)
  AND ($4::text IS NULL OR e.entity_id = $4)
ORDER BY p.position DESC
LIMIT $5
