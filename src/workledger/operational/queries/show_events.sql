-- Promise: the events of one workflow in the order of the log, then those that wait for a position, in the order in
-- which they will get it; one page after an event ($2), which is named by its id because it may be given its position
-- between one page and the next.
-- Safe under concurrency: one snapshot, in which an event is either in the inbox or has a position.
WITH told AS (
    SELECT p.position, coalesce(p.position, 4611686018427387904 + i.seq) AS place, e.event_id::text AS event_id,
           e.event_type, e.entity_type, e.entity_id, e.workflow_id, e.severity, e.created_at, e.recorded_at,
           e.schema_version, e.payload
    FROM events e
    LEFT JOIN event_positions p ON p.event_id = e.event_id
    LEFT JOIN event_inbox i ON i.event_id = e.event_id
    WHERE e.workflow_id = $1
)
SELECT position, event_id, event_type, entity_type, entity_id, workflow_id, severity, created_at, recorded_at,
       schema_version, payload::text AS payload
FROM told
WHERE $2::text IS NULL OR place > (SELECT place FROM told WHERE event_id = $2::text)
ORDER BY place
LIMIT $3
