-- Promise: the partitions of the log in the order of their times, each with its ids and times: from the first, up to but
-- without the next.
-- Safe under concurrency: one snapshot of the catalogue.
SELECT name, b.first_id::text, b.next_id::text, uuid_time(b.first_id), uuid_time(b.next_id)
FROM (
    SELECT c.relname::text AS name
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = to_regclass(quote_ident(current_schema()) || '.events')
      AND c.relname ~ '^events_[0-9]{4,}_[0-9]{2}$'
    OFFSET 0
) AS p
CROSS JOIN LATERAL event_partition_bounds(p.name) AS b
ORDER BY b.first_id
