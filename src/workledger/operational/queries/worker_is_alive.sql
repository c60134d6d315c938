-- Promise: a row when the worker's lease runs.
-- Safe under concurrency: one row, judged by the server's clock.
SELECT 1 FROM workers
WHERE worker_id = $1 AND stopped_at IS NULL AND lost_at IS NULL
  AND heartbeat_at >= now() - lease_s * interval '1 second'
