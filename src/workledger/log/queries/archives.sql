-- Promise: every file of the archive of a kind ($1, NULL: any), in the order in which they were recorded.
-- Safe under concurrency: one snapshot; what a row says never changes, but for `removed_at`.
SELECT name, kind, source, url, sha256, size_bytes, rows, first_position, last_position, first_time, last_time, erased,
       format_version, event_id::text, archived_at, removed_at
FROM archives
WHERE $1::text IS NULL OR kind = $1
ORDER BY archived_at, name
