-- Promise: the last position given, and how many committed events wait for one.
-- Safe under concurrency: one snapshot.
SELECT (SELECT position FROM log_head), (SELECT count(*) FROM event_inbox)
