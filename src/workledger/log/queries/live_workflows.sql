-- Promise: workflows that are in the state and have events with ids from $1 up to, but without, $2; at most $3.
-- Safe under concurrency: one snapshot; a workflow that has left the state never comes back.
SELECT w.workflow_id
FROM workflows w
WHERE EXISTS (SELECT FROM events e
              WHERE e.workflow_id = w.workflow_id AND e.event_id >= $1::uuid AND e.event_id < $2::uuid)
ORDER BY w.workflow_id
LIMIT $3
