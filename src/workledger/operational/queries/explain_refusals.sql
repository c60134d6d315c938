-- Promise: for each change that wrote nothing, what stands in its way: its own event (then it was a repetition),
-- or the state of what it speaks of.
-- Safe under concurrency: read after the refusal; it only words an error or recognises a repetition.
WITH change AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS c (
        n integer, event_id uuid, event_type text, entity_type text, entity_id text, workflow_id text, payload jsonb)
)
SELECT c.n,
       CASE WHEN e.event_id IS NOT NULL THEN
           e.event_type = c.event_type AND e.entity_type = c.entity_type AND e.entity_id = c.entity_id
           AND e.payload - 'seq' = c.payload - 'seq' END AS same_event,
       (e.payload ->> 'seq')::bigint AS seq,
       w.status AS workflow_status, w.attempt, w.cancel_requested_at IS NOT NULL AS cancel_requested,
       w.error_type AS workflow_error_type, x.status AS execution_status, x.error_type,
       v.conversation_id IS NOT NULL AS has_conversation,
       d.steps = coalesce(c.payload -> 'steps', '[]')
           AND d.source_digest IS NOT DISTINCT FROM c.payload ->> 'source_digest' AS same_definition,
       coalesce(aw.archive, av.archive) AS archive
FROM change c
LEFT JOIN events e ON e.event_id = c.event_id
LEFT JOIN workflows w ON w.workflow_id = c.workflow_id
LEFT JOIN task_executions x ON c.entity_type = 'task' AND x.execution_id = c.entity_id
LEFT JOIN conversations v ON c.entity_type = 'conversation' AND v.conversation_id = c.entity_id
LEFT JOIN definitions d ON c.entity_type = 'definition'
    AND d.name = c.payload ->> 'name' AND d.version = c.payload ->> 'version'
LEFT JOIN archived_workflows aw ON aw.workflow_id = c.workflow_id
LEFT JOIN archived_conversations av ON c.entity_type = 'conversation' AND av.conversation_id = c.entity_id
ORDER BY c.n
