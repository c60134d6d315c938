-- Promise: events that have no position and do not wait for one: nobody recorded them. At most $1.
-- Safe under concurrency: one snapshot.
SELECT e.event_id::text, e.event_type, e.entity_type, e.entity_id
FROM events e
WHERE NOT EXISTS (SELECT FROM event_positions p WHERE p.event_id = e.event_id)
  AND NOT EXISTS (SELECT FROM event_inbox i WHERE i.event_id = e.event_id)
LIMIT $1
