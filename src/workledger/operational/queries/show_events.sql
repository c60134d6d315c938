-- Promise: the events of one workflow in the order of the log, those without a position last; one page after an event
-- ($2), which is named by its id because it may be given its position between one page and the next.
-- Safe under concurrency: one snapshot.
WITH page AS (
    SELECT $2::uuid AS event_id,
           coalesce((SELECT position FROM event_positions WHERE event_id = $2::uuid), 9223372036854775807) AS position
)
SELECT p.position, e.event_id::text AS event_id, e.event_type, e.entity_type, e.entity_id, e.workflow_id, e.severity,
       e.created_at, e.recorded_at, e.schema_version, e.payload::text AS payload
FROM events e
LEFT JOIN event_positions p ON p.event_id = e.event_id
CROSS JOIN page
WHERE e.workflow_id = $1
  AND (page.event_id IS NULL
       OR (coalesce(p.position, 9223372036854775807), e.event_id) > (page.position, page.event_id))
ORDER BY p.position NULLS LAST, e.event_id
LIMIT $3
