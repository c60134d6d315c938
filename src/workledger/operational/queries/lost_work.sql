-- Promise: what is recorded as running by workers that cannot be running it: their lease has passed by the server's
-- clock, or they have stopped.
-- Safe under concurrency: only a look; each loss is then reported by a guarded change that one reaper wins.
WITH gone AS (
    SELECT worker_id, stopped_at IS NULL AND lost_at IS NULL AS unreported
    FROM workers
    WHERE stopped_at IS NOT NULL OR lost_at IS NOT NULL
       OR heartbeat_at < now() - lease_s * interval '1 second'
)
SELECT 'execution' AS what, x.execution_id AS id, x.workflow_id, x.worker_id, NULL::integer AS attempt
FROM task_executions x JOIN gone g ON g.worker_id = x.worker_id
WHERE x.status = 'running'
UNION ALL
SELECT 'workflow', w.workflow_id, w.workflow_id, w.worker_id, w.attempt
FROM workflows w JOIN gone g ON g.worker_id = w.worker_id
WHERE w.status = 'running'
UNION ALL
SELECT 'worker', g.worker_id, NULL, g.worker_id, NULL
FROM gone g
WHERE g.unreported
