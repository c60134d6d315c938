-- Promise: the events at positions $1 + 1 to $2, in order, each as the line that the record type `events` has for it.
-- A line of more than $3 bytes comes as NULL, so that a page has a bounded size; it is fetched alone.
-- Safe under concurrency: positions are only ever added above the head, and what stands at one never changes.
SELECT l.position, l.event_type::varchar, CASE WHEN octet_length(l.line) <= $3 THEN l.line END
FROM (
    SELECT p.position, e.event_type, concat(
        '{"position":', p.position,
        ',"event_id":"', e.event_id,
        '","event_type":', to_json(e.event_type),
        ',"entity_type":', coalesce(to_json(e.entity_type)::text, 'null'),
        ',"entity_id":', coalesce(to_json(e.entity_id)::text, 'null'),
        ',"workflow_id":', coalesce(to_json(e.workflow_id)::text, 'null'),
        ',"severity":', coalesce(to_json(e.severity)::text, 'null'),
        ',"created_at":"', to_char(e.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        '","recorded_at":"', to_char(e.recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        '","schema_version":', e.schema_version,
        ',"payload":', coalesce(e.payload::text, 'null'), '}') AS line
    FROM event_positions p
    JOIN events e ON e.event_id = p.event_id
    WHERE p.position > $1 AND p.position <= $2
    ORDER BY p.position
    OFFSET 0
) AS l
