-- Promise: payloads stored at least $2 seconds ago are removed by digest; gives the bytes of each that was.
-- Safe under concurrency: runs under the lock of `lock_payloads`, after a look at what was committed before it.
DELETE FROM payloads
WHERE digest = ANY ($1) AND created_at < now() - $2::double precision * interval '1 second'
RETURNING octet_length(body)
