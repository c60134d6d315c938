-- Promise: at most $3 workflows that ended, and were last written to, before $1, with nothing of theirs still open, and
-- whose events all have positions, none beyond $2; the longest ended first.
-- Safe under concurrency: one snapshot, the caller's; each is looked at again, locked, before it goes.
INSERT INTO pg_temp.leaving_workflows (workflow_id, first_position, last_position)
SELECT w.workflow_id, e.first_position, e.last_position
FROM workflows w
CROSS JOIN LATERAL (
    SELECT min(p.position) AS first_position, max(p.position) AS last_position, count(*) AS events,
           count(p.position) AS positions
    FROM events v LEFT JOIN event_positions p ON p.event_id = v.event_id
    WHERE v.workflow_id = w.workflow_id
) AS e
WHERE w.status IN ('completed', 'failed', 'cancelled') AND w.completed_at < $1 AND w.updated_at < $1
  AND e.events = e.positions AND e.last_position <= $2
  AND NOT EXISTS (SELECT FROM task_executions x
                  WHERE x.workflow_id = w.workflow_id AND x.status IN ('pending', 'running'))
ORDER BY w.completed_at, w.workflow_id
LIMIT $3
