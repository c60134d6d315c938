-- Promise: what is recorded as running by workers that are not running it: they have stopped or were declared lost, or,
-- with $1, their lease has passed by the server's clock.
-- Safe under concurrency: only a look; each loss is then reported by a guarded change that one reaper wins.
WITH gone AS (
    SELECT worker_id
    FROM workers
    WHERE stopped_at IS NOT NULL OR lost_at IS NOT NULL
       OR ($1 AND heartbeat_at < now() - lease_s * interval '1 second')
)
SELECT 'execution' AS what, x.execution_id AS id, x.workflow_id, x.worker_id, NULL::integer AS attempt
FROM task_executions x JOIN gone g ON g.worker_id = x.worker_id
WHERE x.status = 'running'
UNION ALL
SELECT 'workflow', w.workflow_id, w.workflow_id, w.worker_id, w.attempt
FROM workflows w JOIN gone g ON g.worker_id = w.worker_id
WHERE w.status = 'running'
