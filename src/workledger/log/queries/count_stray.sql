-- Promise: how many more events there are than positions and waiting keys; 0 when every event has its place.
-- Safe under concurrency: one snapshot; event, key and position are moved in single transactions.
SELECT (SELECT count(*) FROM events) - (SELECT count(*) FROM event_positions) - (SELECT count(*) FROM event_inbox)
