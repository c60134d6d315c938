-- Promise: a public key is listed once; listing it again changes nothing.
-- Safe under concurrency: the primary key decides.
INSERT INTO seal_keys (key_id, name, public_key, endorsed_by, endorsement) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (key_id) DO NOTHING
