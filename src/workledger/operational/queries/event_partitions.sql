-- Promise: the partitions of the log, newest first: the month, the estimated rows, the size.
-- Safe under concurrency: one snapshot of the catalog.
SELECT c.relname AS name, greatest(c.reltuples, 0)::bigint AS estimated_rows, pg_total_relation_size(c.oid) AS size_bytes
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass('events')
ORDER BY c.relname DESC
