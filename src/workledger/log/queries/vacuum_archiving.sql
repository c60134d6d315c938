-- Promise: the planner knows how much is being archived, and reads its keys from the index alone.
-- Safe under concurrency: temporary tables are nobody else's.
VACUUM (ANALYZE) pg_temp.archiving
