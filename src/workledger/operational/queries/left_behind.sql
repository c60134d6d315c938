-- Promise: the executions that earlier attempts of a workflow left running; none once somebody has taken it over again.
-- Safe under concurrency: one snapshot. In attempt $2 nothing is started before its owner has read this, so what is
-- running while the workflow is in that attempt was started before it.
SELECT x.execution_id
FROM task_executions x JOIN workflows w ON w.workflow_id = x.workflow_id
WHERE x.workflow_id = $1 AND x.status = 'running' AND w.attempt = $2
ORDER BY x.execution_id
