-- Promise: when the event with the smallest id was made, by its id; NULL when there is none.
-- Safe under concurrency: one snapshot.
SELECT uuid_time((SELECT event_id FROM events ORDER BY event_id LIMIT 1))
