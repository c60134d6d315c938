-- Promise: the stored payloads of these digests.
-- Safe under concurrency: one snapshot.
SELECT digest, codec, size_bytes, body FROM payloads WHERE digest = ANY ($1)
