-- Promise: the hashes of the seals up to a number, in order, 32 bytes each.
-- Safe under concurrency: one snapshot; seals are only ever added.
SELECT coalesce(string_agg(hash, ''::bytea ORDER BY number), ''::bytea) FROM seals WHERE number <= $1
