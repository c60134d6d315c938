-- Promise: payloads stored at least $2 seconds ago, in the order of their digests, one page after $1.
-- Safe under concurrency: only a look; whether they are in use is found out afterwards.
SELECT encode(digest, 'hex') AS digest, octet_length(body) AS size_bytes
FROM payloads
WHERE digest > $1 AND created_at < now() - $2::double precision * interval '1 second'
ORDER BY digest
LIMIT $3
