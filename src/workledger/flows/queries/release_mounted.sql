-- Promise: partitions may be dropped again.
-- Safe under concurrency: the lock is this session's own.
SELECT pg_advisory_unlock_shared(hashtextextended(current_schema() || '.mounted', 0))
