-- Promise: a finished workflow leaves the state, with its executions and the conversations and feedback that the event
-- names, and the event appears with that, once. What was written about it meanwhile and is not named stays.
-- Safe under concurrency: who archives holds the rows of the workflow and of its conversations locked, so nothing is
-- added to them; the event names feedback one by one, because that is not guarded by any row.
WITH change AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS c (
        n integer, event_id uuid, event_type text, entity_type text, entity_id text, workflow_id text,
        severity text, created_at timestamptz, recorded_at timestamptz, expected text[], payload jsonb)
), gone AS (
    DELETE FROM workflows w USING change c
    WHERE w.workflow_id = c.entity_id AND (c.expected IS NULL OR w.status = ANY (c.expected))
    RETURNING c.*, w.metadata ->> 'source_digest' AS source_digest
), executions AS (
    DELETE FROM task_executions x USING gone g WHERE x.workflow_id = g.entity_id
), talks AS (
    SELECT g.payload ->> 'archive' AS archive, g.created_at, t.conversation_id
    FROM gone g CROSS JOIN LATERAL jsonb_array_elements_text(g.payload -> 'conversations') AS t (conversation_id)
), said AS (
    DELETE FROM messages m USING talks t WHERE m.conversation_id = t.conversation_id
), ended_talks AS (
    DELETE FROM conversations v USING talks t WHERE v.conversation_id = t.conversation_id
), judged AS (
    DELETE FROM feedback f
    USING gone g CROSS JOIN LATERAL jsonb_array_elements_text(g.payload -> 'feedback') AS n (feedback_id)
    WHERE f.feedback_id = n.feedback_id
), noted AS (
    INSERT INTO archived_workflows (workflow_id, archive, first_position, last_position, archived_at, source_digest)
    SELECT g.entity_id, g.payload ->> 'archive', (g.payload -> 'first_position')::bigint,
           (g.payload -> 'last_position')::bigint, g.created_at, g.source_digest
    FROM gone g
), noted_talks AS (
    INSERT INTO archived_conversations (conversation_id, archive, archived_at)
    SELECT t.conversation_id, t.archive, t.created_at FROM talks t
), event AS (
    INSERT INTO events (
        event_id, event_type, entity_type, entity_id, workflow_id, severity, created_at, payload)
    SELECT g.event_id, g.event_type, g.entity_type, g.entity_id, g.workflow_id, g.severity, g.created_at, g.payload
    FROM gone g
    WHERE g.recorded_at IS NULL
    ORDER BY g.n
    RETURNING event_id
)
INSERT INTO event_inbox (event_id) SELECT event_id FROM event
RETURNING event_id, NULL::bigint AS seq
