-- Promise: the next events of a partition after position $1 and up to $2, in order, at most $3 of them and hardly more
-- than $4 bytes, but one at least: how many, and each column in one value, so that no row passes through the reader's
-- hands. Numbers and instants are as the binary protocol has them, texts come one after the other with their lengths in
-- bytes (-1 for NULL), ids and salts without.
-- Safe under concurrency: what is archived never changes.
SELECT count(*),
       string_agg(int8send(position), ''),
       string_agg(event_id::text, ''),
       string_agg(event_type, ''), string_agg(int4send(octet_length(event_type)), ''),
       string_agg(entity_type, ''), string_agg(int4send(coalesce(octet_length(entity_type), -1)), ''),
       string_agg(entity_id, ''), string_agg(int4send(coalesce(octet_length(entity_id), -1)), ''),
       string_agg(workflow_id, ''), string_agg(int4send(coalesce(octet_length(workflow_id), -1)), ''),
       string_agg(severity, ''), string_agg(int4send(coalesce(octet_length(severity), -1)), ''),
       string_agg(timestamptz_send(created_at), ''),
       string_agg(timestamptz_send(recorded_at), ''),
       string_agg(int2send(schema_version), ''),
       string_agg(salt::text, ''),
       string_agg(payload, ''), string_agg(int4send(coalesce(octet_length(payload), -1)), '')
FROM (
    SELECT *, payload_json::text AS payload
    FROM (
        SELECT a.position, e.event_id, e.event_type, e.entity_type, e.entity_id, e.workflow_id, e.severity, e.created_at,
               e.recorded_at, e.schema_version, e.salt, e.payload AS payload_json,
               sum(pg_column_size(e.payload)) OVER (
                   ORDER BY a.position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
        FROM pg_temp.archiving a
        JOIN {partition} e ON e.event_id = a.event_id
        WHERE a.position > $1 AND a.position <= $2
        ORDER BY a.position
        LIMIT $3
    ) AS next_rows
    WHERE bytes_before IS NULL OR bytes_before < $4
    OFFSET 0
) AS lot
