-- Promise: those of the digests $1 that are stored and in no file of the archive yet, with the size of each.
-- Safe under concurrency: one snapshot; one archiver at a time.
SELECT p.digest, octet_length(p.body)
FROM payloads p
WHERE p.digest = ANY ($1::bytea[]) AND NOT EXISTS (SELECT FROM archived_payloads a WHERE a.digest = p.digest)
ORDER BY p.digest
