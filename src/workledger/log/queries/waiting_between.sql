-- Promise: how many events with ids from $1 up to, but without, $2 wait for a position.
-- Safe under concurrency: one snapshot.
SELECT count(*) FROM event_inbox WHERE event_id >= $1::uuid AND event_id < $2::uuid
