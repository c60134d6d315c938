-- Promise: the size of the log as the checks see it: head, positions, events, and events that wait for a position.
-- Safe under concurrency: one snapshot, the caller's.
SELECT (SELECT position FROM log_head), (SELECT count(*) FROM event_positions), (SELECT count(*) FROM events),
       (SELECT count(*) FROM event_inbox)
