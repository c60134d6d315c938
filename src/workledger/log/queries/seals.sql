-- Promise: the seals after a number, in order, one page.
-- Safe under concurrency: one snapshot; seals are only ever added.
SELECT number, origin, first_position, last_position, root, previous, sealed_at, hash, tree_root, peaks, key_id,
       signature, leaves
FROM seals WHERE number > $1 ORDER BY number LIMIT $2
