-- Promise: the files that hold events, which are no longer in the database, with ids from $1 and before $2, in the
-- order of their times.
-- Safe under concurrency: one snapshot, as in archives_between.
SELECT name, kind, source, url, sha256, size_bytes, rows, first_position, last_position, first_time, last_time, erased,
       format_version, event_id::text, archived_at, removed_at
FROM archives
WHERE kind = 'events' AND removed_at IS NOT NULL
  AND uuid_floor(last_time + interval '1 millisecond') > $1::uuid AND uuid_floor(first_time) < $2::uuid
ORDER BY first_time, name
