-- Promise: the digests of the events at positions $1 to $2, in order, 32 bytes each: SHA-256(0x00 || entry), where the
-- entry is the canonical JSON of the envelope. PostgreSQL escapes strings as RFC 8785 wants them, and the columns
-- stand in the order of their names; workledger.log.digests makes the same bytes. The commitment of an erased payload
-- is the one that was kept. An event that is not there leaves its 32 bytes out. The digests are made below the
-- ordering, so that several processes can make them at once.
-- Safe under concurrency: one snapshot; what stands at a position never changes, and an erasure keeps its digest.
SELECT coalesce(string_agg(l.leaf, ''::bytea ORDER BY l.position), ''::bytea)
FROM (
    SELECT r.position, sha256('\x00'::bytea || convert_to(row_to_json(r)::text, 'UTF8')) AS leaf
    FROM (
        SELECT encode(coalesce(x.commitment, sha256(
                   uuid_send(e.salt) || convert_to(coalesce(e.payload::text, ''), 'UTF8'))), 'hex') AS commitment,
               to_char(e.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS created_at,
               e.entity_id, e.entity_type, e.event_id, e.event_type, p.position,
               to_char(e.recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS recorded_at,
               e.schema_version, e.severity, e.workflow_id
        FROM event_positions p
        JOIN events e ON e.event_id = p.event_id
        LEFT JOIN erased_payloads x ON x.event_id = p.event_id
        WHERE p.position BETWEEN $1 AND $2
    ) AS r
    ORDER BY r.position OFFSET 0
) AS l
