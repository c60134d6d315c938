-- Promise: the last seal, without its leaves; no row before the first.
-- Safe under concurrency: one snapshot; seals are only ever added.
SELECT number, origin, first_position, last_position, root, previous, sealed_at, hash, tree_root, peaks, key_id,
       signature, ''::bytea AS leaves
FROM seals ORDER BY number DESC LIMIT 1
