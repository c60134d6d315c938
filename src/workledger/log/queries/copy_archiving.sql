-- Promise: the events at positions after %(after)s and up to %(upto)s of a partition, every column, in order, as CSV.
-- Safe under concurrency: what is archived never changes.
COPY (
    SELECT a.position, e.event_id, e.event_type, e.entity_type, e.entity_id, e.workflow_id, e.severity, e.created_at,
           e.recorded_at, e.schema_version, e.salt, e.payload
    FROM pg_temp.archiving a
    JOIN {partition} e ON e.event_id = a.event_id
    WHERE a.position > %(after)s AND a.position <= %(upto)s
    ORDER BY a.position
) TO STDOUT (FORMAT csv)
