-- Promise: the seal that holds a position; no row when it is not sealed yet.
-- Safe under concurrency: one snapshot; seals are only ever added.
SELECT number, origin, first_position, last_position, root, previous, sealed_at, hash, tree_root, peaks, key_id,
       signature, leaves
FROM (SELECT * FROM seals WHERE last_position >= $1 ORDER BY last_position LIMIT 1) AS s
WHERE first_position <= $1
