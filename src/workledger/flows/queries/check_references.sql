-- Promise: the events that refer to a stored payload which is not there; nothing when all is well. At most $1.
-- Safe under concurrency: one snapshot, the caller's; payloads are stored in the transaction of the event.
SELECT p.position, e.event_id, e.event_type, e.entity_type, e.entity_id, r.digest
FROM events e
CROSS JOIN LATERAL (
    SELECT v.value ->> 'digest' AS digest
    FROM (SELECT value FROM jsonb_each(e.payload) UNION ALL
          SELECT value FROM jsonb_each(e.payload -> 'message')) AS v
    WHERE jsonb_typeof(v.value) = 'object' AND v.value ->> '$workledger' = 'payload'
) AS r
LEFT JOIN payloads s ON s.digest = decode(r.digest, 'hex')
LEFT JOIN event_positions p ON p.event_id = e.event_id
WHERE s.digest IS NULL
ORDER BY p.position NULLS LAST, e.event_id
LIMIT $1
