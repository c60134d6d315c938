-- Promise: somebody else may land in the store called $1.
-- Safe under concurrency: only the connection that holds the lock can let go of it.
SELECT pg_advisory_unlock(hashtextextended(current_schema() || '.landing.' || $1::text, 0))
