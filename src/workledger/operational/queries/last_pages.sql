-- Promise: where the last page of a workflow's executions ($2 long) and events ($3) begins: the row just
-- before it, or NULL when one page holds all.
-- Safe under concurrency: one snapshot.
SELECT (SELECT execution_id FROM task_executions WHERE workflow_id = $1
        ORDER BY created_at DESC, execution_id DESC OFFSET $2 LIMIT 1) AS execution,
       (SELECT e.event_id::text
        FROM events e
        LEFT JOIN event_positions p ON p.event_id = e.event_id
        LEFT JOIN event_inbox i ON i.event_id = e.event_id
        WHERE e.workflow_id = $1
        ORDER BY coalesce(p.position, 4611686018427387904 + i.seq) DESC OFFSET $3 LIMIT 1) AS event
