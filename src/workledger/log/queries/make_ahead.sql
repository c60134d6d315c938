-- Promise: the partitions of this month and of the $1 that come are there; gives those that were made now.
-- Safe under concurrency: whoever comes second finds what the first has made.
SELECT made
FROM (SELECT ensure_event_partition(now() + ahead * interval '1 month') AS made FROM generate_series(0, $1::integer) AS ahead) AS m
WHERE made IS NOT NULL
