-- Promise: every worker that has not ended, its last heartbeat, and whether its lease has passed by the server's clock.
-- Safe under concurrency: only a look; that a worker is lost is decided by a guarded change.
SELECT worker_id, heartbeat_at::text, lease_s, heartbeat_at < now() - lease_s * interval '1 second' AS lease_is_over
FROM workers
WHERE stopped_at IS NULL AND lost_at IS NULL
