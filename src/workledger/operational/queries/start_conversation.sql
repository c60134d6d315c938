-- Promise: a conversation's row and its `conversation.started` event appear together, once.
-- Safe under concurrency: the primary key decides; the second writer writes nothing.
WITH change AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS c (
        n integer, event_id uuid, event_type text, entity_type text, entity_id text, workflow_id text,
        severity text, created_at timestamptz, recorded_at timestamptz, expected text[], payload jsonb)
), started AS (
    INSERT INTO conversations (conversation_id, title, subject, metadata, created_at, updated_at)
    SELECT c.entity_id, p.title, p.subject, coalesce(p.metadata, '{}'), c.created_at, coalesce(c.recorded_at, now())
    FROM change c
    CROSS JOIN LATERAL jsonb_to_record(c.payload) AS p (title text, subject text, metadata jsonb)
    WHERE NOT EXISTS (SELECT FROM archived_conversations a WHERE a.conversation_id = c.entity_id)
    ON CONFLICT (conversation_id) DO NOTHING
    RETURNING conversation_id
), event AS (
    INSERT INTO events (
        event_id, event_type, entity_type, entity_id, workflow_id, severity, created_at, payload)
    SELECT c.event_id, c.event_type, c.entity_type, c.entity_id, c.workflow_id, c.severity, c.created_at, c.payload
    FROM change c
    WHERE c.recorded_at IS NULL AND c.entity_id = ANY (ARRAY(SELECT conversation_id FROM started))
    RETURNING event_id
)
INSERT INTO event_inbox (event_id) SELECT event_id FROM event
RETURNING event_id, NULL::bigint AS seq
