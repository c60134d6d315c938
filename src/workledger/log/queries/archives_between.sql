-- Promise: the files that hold events, which are no longer in the database, at positions after $1 and up to $2 and the
-- head of the log, in the order of their first positions.
-- Safe under concurrency: one snapshot. A partition is dropped, and its files counted from then on, in one transaction.
SELECT name, kind, source, url, sha256, size_bytes, rows, first_position, last_position, first_time, last_time, erased,
       format_version, event_id::text, archived_at, removed_at
FROM archives
WHERE kind = 'events' AND removed_at IS NOT NULL
  AND last_position > $1 AND first_position <= least($2, (SELECT position FROM log_head))
ORDER BY first_position, name
