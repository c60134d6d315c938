-- Promise: a table of this session's own for the keys of the events that are being archived.
-- Safe under concurrency: temporary tables are nobody else's.
CREATE TEMPORARY TABLE archiving (position bigint, event_id uuid)
