-- Promise: how many lines each record type has for the positions $1 + 1 to $2, counted from the log alone.
-- Safe under concurrency: what the log has at or below a position never changes.
SELECT count(*),
       count(*) FILTER (WHERE finished.kind IS DISTINCT FROM 'tool' AND e.event_type IN ('task.completed', 'task.failed', 'task.cancelled')),
       count(*) FILTER (WHERE finished.kind = 'tool'),
       count(*) FILTER (WHERE e.event_type IN ('workflow.completed', 'workflow.failed', 'workflow.cancelled'))
FROM event_positions p
JOIN events e ON e.event_id = p.event_id
LEFT JOIN LATERAL (
    SELECT s.payload ->> 'kind' AS kind
    FROM events s
    JOIN event_positions sp ON sp.event_id = s.event_id
    WHERE e.event_type IN ('task.completed', 'task.failed', 'task.cancelled')
      AND s.entity_type = 'task' AND s.entity_id = e.entity_id AND s.event_type = 'task.started'
      AND sp.position < p.position
    ORDER BY sp.position DESC
    LIMIT 1
) AS finished ON true
WHERE p.position > $1 AND p.position <= $2
