-- Promise: the workers and how each is, judged by the server's clock: those at work first, then the newest heartbeat.
-- Safe under concurrency: one snapshot.
SELECT worker_id, hostname, pid, version, started_at, heartbeat_at, lease_s, stopped_at, lost_at, state
FROM (
    SELECT k.*,
           CASE WHEN lost_at IS NOT NULL THEN 'lost'
                WHEN stopped_at IS NOT NULL THEN 'stopped'
                WHEN heartbeat_at >= now() - lease_s * interval '1 second' THEN 'alive'
                ELSE 'overdue' END AS state
    FROM workers k
) AS judged
ORDER BY array_position(ARRAY['overdue', 'alive', 'lost', 'stopped'], state), heartbeat_at DESC
LIMIT $1
