-- Promise: the position of an event; no row while it has none.
-- Safe under concurrency: one row; a position never changes.
SELECT position FROM event_positions WHERE event_id = $1
