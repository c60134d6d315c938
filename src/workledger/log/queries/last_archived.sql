-- Promise: the last position whose event is in the archive and no longer in the database; 0 when there is none.
-- Safe under concurrency: one snapshot, as in archives_between.
SELECT coalesce(max(last_position), 0) FROM archives WHERE kind = 'events' AND removed_at IS NOT NULL
