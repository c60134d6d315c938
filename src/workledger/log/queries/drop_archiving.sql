-- Promise: the table of what is being archived is gone, if it was there.
-- Safe under concurrency: temporary tables are nobody else's.
DROP TABLE IF EXISTS pg_temp.archiving
