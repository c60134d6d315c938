-- Promise: while this session holds it, no partition of the log is dropped because it was archived.
-- Safe under concurrency: a shared advisory lock of the session, released by its end, whatever ends it.
SELECT pg_advisory_lock_shared(hashtextextended(current_schema() || '.mounted', 0))
