-- Promise: when each execution of a workflow began and ended, as positions in the log: no clock is asked.
-- Safe under concurrency: one snapshot; what is not sequenced yet is left out.
SELECT e.entity_id AS execution_id,
       min(p.position) FILTER (WHERE e.event_type = 'task.started') AS began,
       max(p.position) FILTER (WHERE e.event_type <> 'task.started') AS ended
FROM events e JOIN event_positions p ON p.event_id = e.event_id
WHERE e.workflow_id = $1 AND e.event_type IN ('task.started', 'task.completed', 'task.failed', 'task.cancelled')
GROUP BY e.entity_id
