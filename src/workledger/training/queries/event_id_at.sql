-- Promise: the id of the event at position $1; no row where the log has none.
-- Safe under concurrency: what stands at a position never changes.
SELECT event_id::text FROM event_positions WHERE position = $1
