-- Promise: every public key of the log, oldest first, and whether another one took over from it.
-- Safe under concurrency: one snapshot; keys are only ever added.
SELECT k.name, k.public_key, k.endorsed_by, k.endorsement, k.created_at,
       EXISTS (SELECT FROM seal_keys later WHERE later.endorsed_by = k.key_id) AS replaced
FROM seal_keys k
ORDER BY k.created_at, k.key_id
