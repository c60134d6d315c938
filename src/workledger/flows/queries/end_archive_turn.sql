-- Promise: another archiver may begin.
-- Safe under concurrency: the lock is this session's own.
SELECT pg_advisory_unlock(hashtextextended(current_schema() || '.archive', 0))
