-- Promise: the events after a position, in the order of the log, each as a line of JSON with the keys of an event.
-- CSV, because its lines are then the JSON as it is: delimiter and quote are characters that JSON never has in it. The
-- order stands outside, so that several processes can make lines at once.
-- Safe under concurrency: one snapshot; positions are only ever added above the head.
COPY (
    SELECT row_to_json(r)
    FROM (
        SELECT p.position, e.event_id, e.event_type, e.entity_type, e.entity_id, e.workflow_id, e.severity,
               to_char(e.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS created_at,
               to_char(e.recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS recorded_at,
               e.schema_version, e.payload
        FROM event_positions p
        JOIN events e ON e.event_id = p.event_id
        WHERE p.position > %s AND p.position <= %s
    ) AS r
    ORDER BY r.position
) TO STDOUT (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02')
