-- Promise: workflows of these names that wait for somebody to run them, oldest first: created for later, left behind by
-- a worker that stopped or was declared lost, reaped from one, or, with $3, left behind by one whose lease has passed
-- (but a server that has just started has not heard from anybody).
-- Safe under concurrency: only a look; who takes one is decided by the guarded change that starts or resumes it.
SELECT w.workflow_id, w.name
FROM workflows w
LEFT JOIN workers k ON k.worker_id = w.worker_id
WHERE w.name = ANY ($1)
  AND w.cancel_requested_at IS NULL
  AND (w.status = 'pending'
       OR (w.status = 'failed' AND w.error_type = 'WorkerLost')
       OR (w.status = 'running' AND k.worker_id IS NOT NULL
           AND (k.stopped_at IS NOT NULL OR k.lost_at IS NOT NULL
                OR ($3 AND greatest(k.heartbeat_at, pg_postmaster_start_time())
                    < now() - k.lease_s * interval '1 second'))))
ORDER BY w.created_at, w.workflow_id
LIMIT $2
