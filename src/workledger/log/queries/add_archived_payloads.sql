-- Promise: which file of the archive ($1) has which large values.
-- Safe under concurrency: the first file that has a value is the one.
INSERT INTO archived_payloads (digest, archive) SELECT digest, $1 FROM unnest($2::bytea[]) AS digest
ON CONFLICT (digest) DO NOTHING
