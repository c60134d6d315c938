-- Promise: the first signed seal after a number, without its leaves; no row when none is signed.
-- Safe under concurrency: one snapshot; seals are only ever added.
SELECT number, origin, first_position, last_position, root, previous, sealed_at, hash, tree_root, peaks, key_id,
       signature, ''::bytea AS leaves
FROM seals WHERE number > $1 AND signature IS NOT NULL ORDER BY number LIMIT 1
