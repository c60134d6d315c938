-- Promise: for each of the workflows $1, how many of its top-level tasks were completed up to position $2, and which
-- one was the last to begin.
-- Safe under concurrency: what the log has at or below a position never changes.
SELECT s.workflow_id, sum(done.times)::bigint, max(sp.position),
       ((array_agg(s.payload -> 'task_name' ORDER BY sp.position DESC))[1])::text
FROM events s
JOIN event_positions sp ON sp.event_id = s.event_id
CROSS JOIN LATERAL (
    SELECT count(*) AS times
    FROM events c
    JOIN event_positions cp ON cp.event_id = c.event_id
    WHERE c.entity_type = 'task' AND c.entity_id = s.entity_id AND c.event_type = 'task.completed'
      AND cp.position <= $2
) AS done
WHERE s.workflow_id = ANY ($1::text[]) AND s.event_type = 'task.started' AND sp.position <= $2
  AND s.payload ->> 'kind' = 'task' AND s.payload ->> 'parent_execution_id' IS NULL
GROUP BY s.workflow_id
