-- Promise: the events at positions $1 + 1 to $2, in order, each as a line of JSON with the keys of an event, all in one
-- text; NULL where there is none.
-- Safe under concurrency: one snapshot; what stands at a position never changes.
SELECT string_agg(row_to_json(r)::text, E'\n' ORDER BY r.position)
FROM (
    SELECT p.position, e.event_id, e.event_type, e.entity_type, e.entity_id, e.workflow_id, e.severity,
           to_char(e.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS created_at,
           to_char(e.recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS recorded_at,
           e.schema_version, e.payload
    FROM event_positions p
    JOIN events e ON e.event_id = p.event_id
    WHERE p.position > $1 AND p.position <= $2
    ORDER BY p.position
) AS r
