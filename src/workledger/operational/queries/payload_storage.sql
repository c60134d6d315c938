-- Promise: about how many values are stored by digest (the statistics' estimate), and exactly how much room they take.
-- Safe under concurrency: only a look, which reads no payload.
SELECT greatest(c.reltuples, 0)::bigint AS payloads, pg_total_relation_size(c.oid) AS size_bytes
FROM pg_class c
WHERE c.oid = to_regclass('payloads')
