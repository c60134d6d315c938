-- Promise: says that the worker is alive now, by the server's clock; returns no row when it has been declared lost.
-- Safe under concurrency: one row, one writer, no event (liveness is not history).
UPDATE workers SET heartbeat_at = now()
WHERE worker_id = $1 AND stopped_at IS NULL AND lost_at IS NULL
RETURNING heartbeat_at
