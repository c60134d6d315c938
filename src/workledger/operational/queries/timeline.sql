-- Promise: what happened in one workflow, in the order of the log: its own changes, its executions, messages, feedback
-- and events; what had no position yet when the reader came to it comes last, by its id. One page after the position $2
-- and, once the reader is at what had none, after the event $3: from there on ids are the order, for a position that
-- is given between one page and the next must not move anything past the reader.
-- Safe under concurrency: one snapshot.
WITH page AS (
    SELECT e.event_id, p.position
    FROM events e
    LEFT JOIN event_positions p ON p.event_id = e.event_id
    WHERE e.workflow_id = $1
      AND coalesce(p.position > $2::bigint, true)
      AND ($3::uuid IS NULL OR e.event_id > $3::uuid)
    ORDER BY CASE WHEN $3::uuid IS NULL THEN p.position END NULLS LAST, e.event_id
    LIMIT $4
)
SELECT g.position, e.event_id::text AS event_id, e.created_at, e.recorded_at, e.event_type, e.severity,
       CASE WHEN e.event_type IN ('message.added', 'message.removed') THEN 'message'
            WHEN e.event_type = 'feedback.recorded' THEN 'feedback'
            WHEN e.event_type IN ('task.started', 'task.completed', 'task.failed', 'task.cancelled') THEN 'execution'
            WHEN e.event_type IN ('workflow.created', 'workflow.started', 'workflow.progressed',
                'workflow.cancel_requested', 'workflow.completed', 'workflow.failed', 'workflow.cancelled',
                'workflow.resumed') THEN 'workflow'
            ELSE 'event' END AS what,
       e.entity_type, e.entity_id,
       coalesce(x.task_name, CASE e.event_type
           WHEN 'message.added' THEN e.payload #>> '{message,role}' ELSE e.payload ->> 'name' END) AS title,
       coalesce(x.execution_id, e.payload ->> 'execution_id') AS execution_id,
       x.parent_execution_id, x.kind, x.retry_count,
       CASE e.event_type WHEN 'message.added' THEN (e.payload ->> 'seq')::bigint END AS seq,
       CASE WHEN e.event_type IN ('workflow.completed', 'workflow.failed', 'workflow.cancelled', 'task.completed',
                'task.failed', 'task.cancelled')
           THEN (e.payload ->> 'execution_time_ms')::double precision END AS execution_time_ms,
       e.payload ->> 'error_type' AS error_type, left(e.payload ->> 'error', 1000) AS error
FROM page g
JOIN events e ON e.event_id = g.event_id
LEFT JOIN task_executions x ON e.entity_type = 'task' AND x.execution_id = e.entity_id
ORDER BY CASE WHEN $3::uuid IS NULL THEN g.position END NULLS LAST, g.event_id
