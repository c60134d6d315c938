-- Promise: says that the worker is alive now, by the server's clock, and how that was taken: `alive`, `ended` when it has
-- stopped or was declared lost, `unknown` when nothing is recorded of it (yet).
-- Safe under concurrency: one row, one writer, no event (liveness is not history).
WITH beat AS (
    UPDATE workers SET heartbeat_at = now()
    WHERE worker_id = $1 AND stopped_at IS NULL AND lost_at IS NULL
    RETURNING worker_id
)
SELECT CASE WHEN EXISTS (SELECT FROM beat) THEN 'alive'
            WHEN EXISTS (SELECT FROM workers WHERE worker_id = $1) THEN 'ended'
            ELSE 'unknown' END
