-- Promise: stored payloads in the order of their digests, one page after $1.
-- Safe under concurrency: one snapshot, the caller's.
SELECT digest, codec, size_bytes, body FROM payloads WHERE digest > $1 ORDER BY digest LIMIT $2
