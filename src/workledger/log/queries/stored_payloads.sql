-- Promise: the stored payloads with the digests $1, in the order of the digests.
-- Safe under concurrency: equal digests are equal content.
SELECT digest, codec, size_bytes, body FROM payloads WHERE digest = ANY ($1::bytea[]) ORDER BY digest
