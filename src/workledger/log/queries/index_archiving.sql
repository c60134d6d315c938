-- Promise: the keys of what is being archived can be read by position.
-- Safe under concurrency: temporary tables are nobody else's.
CREATE INDEX archiving_by_position ON pg_temp.archiving (position) INCLUDE (event_id)
