-- Promise: how many positions after $1 wait for a seal, when the first of them was recorded, and what time it is.
-- Safe under concurrency: one snapshot.
SELECT h.position - $1,
       (SELECT e.recorded_at FROM event_positions p JOIN events e ON e.event_id = p.event_id
        WHERE p.position = $1 + 1),
       now()
FROM log_head h
