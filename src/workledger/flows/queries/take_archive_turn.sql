-- Promise: one archiver at a time in this schema; whoever comes meanwhile is told so and does not wait.
-- Safe under concurrency: an advisory lock of the session, released by its end, whatever ends it.
SELECT pg_try_advisory_lock(hashtextextended(current_schema() || '.archive', 0))
