-- Promise: how many workflows and executions stand in each status.
-- Safe under concurrency: one snapshot.
SELECT 'workflow' AS what, status, count(*) FROM workflows GROUP BY status
UNION ALL
SELECT 'execution', status, count(*) FROM task_executions GROUP BY status
