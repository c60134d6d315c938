-- Promise: the workers, newest heartbeat first, and whether each is alive by the server's clock.
-- Safe under concurrency: one snapshot.
SELECT worker_id, hostname, pid, version, started_at, heartbeat_at, lease_s, stopped_at, lost_at
FROM workers ORDER BY heartbeat_at DESC LIMIT $1
