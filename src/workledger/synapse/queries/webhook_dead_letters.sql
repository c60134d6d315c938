-- Promise: the dead letters of a webhook in the order of the log, after a position.
-- Safe under concurrency: one snapshot.
SELECT position, event_id::text, event_type, attempts, reason, failed_at
FROM webhook_dead_letters WHERE webhook = $1 AND position > $2
ORDER BY position
LIMIT $3
