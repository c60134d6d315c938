-- Promise: the keys of all committed events with ids from $1 up to, but without, $2 that have no position or one after
-- $3.
-- Safe under concurrency: one snapshot; an event that is committed later gets a position beyond all of these.
INSERT INTO pg_temp.archiving (position, event_id)
SELECT p.position, e.event_id
FROM events e
LEFT JOIN event_positions p ON p.event_id = e.event_id
WHERE e.event_id >= $1::uuid AND e.event_id < $2::uuid AND (p.position IS NULL OR p.position > $3)
