-- Promise: true when nobody else lands in the store called $1; from then on nobody else gets true.
-- Safe under concurrency: an advisory lock of this schema, held by the connection and gone with it.
SELECT pg_try_advisory_lock(hashtextextended(current_schema() || '.landing.' || $1::text, 0))
