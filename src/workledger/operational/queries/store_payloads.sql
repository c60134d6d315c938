-- Promise: a payload is stored once under the digest of its content, and stays until the end of this transaction, when
-- what refers to it is there.
-- Safe under concurrency: equal digests are equal content, so whoever comes second has nothing to add. Recording shares
-- a lock on a part of the digests (their first byte); who collects unused payloads holds it alone, for a moment. What
-- was collected while this waited for the lock is not in the way, and is stored again.
WITH held AS MATERIALIZED (
    SELECT count(pg_advisory_xact_lock_shared(hashtextextended(current_schema() || '.payloads', part.number))) AS locks
    FROM (SELECT DISTINCT get_byte(digest, 0) AS number FROM unnest($1::bytea[]) AS digest ORDER BY 1) AS part
)
INSERT INTO payloads (digest, codec, size_bytes, body)
SELECT p.digest, p.codec, p.size_bytes, p.body
FROM held
CROSS JOIN unnest($1::bytea[], $2::text[], $3::bigint[], $4::bytea[])
    AS p (digest, codec, size_bytes, body)
WHERE held.locks > 0
ON CONFLICT (digest) DO NOTHING
