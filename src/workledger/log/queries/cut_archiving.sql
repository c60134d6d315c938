-- Promise: the next stretch to be archived after position $1, of at most $2 events: how many they are, and their first
-- and last position.
-- Safe under concurrency: temporary tables are nobody else's, and never change.
SELECT count(*), min(position), max(position)
FROM (SELECT position FROM pg_temp.archiving WHERE position > $1 ORDER BY position LIMIT $2) AS stretch
