-- Promise: a row when the worker's lease runs, or may run: a server that has just started has not heard from anybody.
-- Safe under concurrency: one row, judged by the server's clock.
SELECT 1 FROM workers
WHERE worker_id = $1 AND stopped_at IS NULL AND lost_at IS NULL
  AND greatest(heartbeat_at, pg_postmaster_start_time()) >= now() - lease_s * interval '1 second'
