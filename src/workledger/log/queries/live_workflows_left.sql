-- Promise: as live_workflows, without the workflows that are about to leave.
-- Safe under concurrency: one snapshot, and a table of this session's own.
SELECT w.workflow_id
FROM workflows w
WHERE EXISTS (SELECT FROM events e
              WHERE e.workflow_id = w.workflow_id AND e.event_id >= $1::uuid AND e.event_id < $2::uuid)
  AND NOT EXISTS (SELECT FROM pg_temp.leaving_workflows g WHERE g.workflow_id = w.workflow_id)
ORDER BY w.workflow_id
LIMIT $3
