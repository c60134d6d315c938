-- Promise: the ledger's own events that cannot be as they were recorded: a second beginning or end of one thing, an
-- order that the guards do not allow, columns that contradict each other. Nothing when all is well. At most $1.
-- Safe under concurrency: one snapshot, the caller's. What has no position yet comes last, as it will.
WITH own AS (
    SELECT p.position, e.event_id, e.event_type, e.entity_type, e.entity_id, e.severity, e.created_at,
           split_part(e.event_type, '.', 1) AS family,
           CASE e.event_type
               WHEN 'message.added' THEN e.payload ->> 'message_id'
               WHEN 'feedback.recorded' THEN e.payload ->> 'feedback_id'
               ELSE e.entity_id END AS thing,
           row_number() OVER (ORDER BY p.position NULLS LAST, i.seq) AS n
    FROM events e
    LEFT JOIN event_positions p ON p.event_id = e.event_id
    LEFT JOIN event_inbox i ON i.event_id = e.event_id
    WHERE e.event_type IN (
        'definition.registered', 'workflow.created', 'workflow.started', 'workflow.progressed',
        'workflow.cancel_requested', 'workflow.completed', 'workflow.failed', 'workflow.cancelled',
        'workflow.resumed', 'workflow.archived', 'task.started', 'task.completed', 'task.failed', 'task.cancelled',
        'conversation.started', 'message.added', 'message.removed', 'feedback.recorded', 'worker.started',
        'worker.stopped', 'worker.lost')
), ordered AS (
    SELECT own.*, lag(event_type) OVER (PARTITION BY family, thing ORDER BY n) AS before
    FROM own
    WHERE event_type NOT IN ('workflow.progressed', 'workflow.cancel_requested', 'message.removed')
)
(SELECT 'follows ' || coalesce(before, 'nothing') AS fault, position, event_id, event_type, entity_type, entity_id
 FROM ordered
 WHERE NOT CASE event_type
        WHEN 'workflow.started' THEN before IS NULL OR before = 'workflow.created'
        WHEN 'workflow.completed' THEN before IN ('workflow.started', 'workflow.resumed')
        WHEN 'workflow.failed' THEN before IN ('workflow.created', 'workflow.started', 'workflow.resumed')
        WHEN 'workflow.cancelled' THEN before IN ('workflow.created', 'workflow.started', 'workflow.resumed')
        WHEN 'workflow.resumed' THEN before IS NOT NULL AND before NOT IN ('workflow.completed', 'workflow.archived')
        WHEN 'workflow.archived' THEN before IN ('workflow.completed', 'workflow.failed', 'workflow.cancelled')
        WHEN 'task.completed' THEN before = 'task.started'
        WHEN 'task.failed' THEN before = 'task.started'
        WHEN 'task.cancelled' THEN before = 'task.started'
        WHEN 'worker.stopped' THEN before = 'worker.started'
        WHEN 'worker.lost' THEN before = 'worker.started'
        ELSE before IS NULL END IS TRUE
 ORDER BY n LIMIT $1)
UNION ALL
(SELECT CASE
        WHEN severity_is_wrong THEN 'severity is ' || severity
        WHEN entity_is_wrong THEN 'entity type is ' || entity_type
        ELSE 'created_at is not the time that its id carries' END,
        position, event_id, event_type, entity_type, entity_id
 FROM own
 CROSS JOIN LATERAL (SELECT
    severity <> CASE
        WHEN event_type IN ('workflow.failed', 'task.failed', 'worker.lost') THEN 'error'
        WHEN event_type IN ('workflow.cancelled', 'task.cancelled') THEN 'warning'
        ELSE 'info' END AS severity_is_wrong,
    CASE family
        WHEN 'message' THEN entity_type <> 'conversation'
        WHEN 'worker' THEN entity_type <> 'system'
        WHEN 'feedback' THEN entity_type NOT IN ('workflow', 'task', 'message')
        ELSE entity_type <> family END AS entity_is_wrong,
    created_at > '1970-01-01Z'
        AND uuid_floor(created_at) <> uuid_floor(uuid_time(event_id)) AS time_is_wrong) AS judged
 WHERE severity_is_wrong OR entity_is_wrong OR time_is_wrong
 ORDER BY n LIMIT $1)
