-- Promise: messages taken out of a conversation (pop, clear) are marked, never deleted, together with their
-- `message.removed` event, which names them.
-- Safe under concurrency: only messages that still stand are marked; if none does, no event is written. The look
-- into `events` makes a repeated removal a no-op, even where a message it names came later.
WITH change AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS c (
        n integer, event_id uuid, event_type text, entity_type text, entity_id text, workflow_id text,
        severity text, created_at timestamptz, recorded_at timestamptz, expected text[], payload jsonb)
), removed AS (
    UPDATE messages m
    SET removed_at = c.created_at
    FROM change c
    WHERE m.conversation_id = c.entity_id
      AND m.seq IN (SELECT jsonb_array_elements_text(c.payload -> 'seqs')::bigint)
      AND m.removed_at IS NULL
      AND (c.expected IS NULL OR NOT EXISTS (SELECT FROM events e WHERE e.event_id = c.event_id))
    RETURNING c.event_id
), event AS (
    INSERT INTO events (
        event_id, event_type, entity_type, entity_id, workflow_id, severity, created_at, payload)
    SELECT c.event_id, c.event_type, c.entity_type, c.entity_id, c.workflow_id, c.severity, c.created_at, c.payload
    FROM change c JOIN (SELECT DISTINCT event_id FROM removed) r USING (event_id)
    WHERE c.recorded_at IS NULL
    RETURNING event_id
)
INSERT INTO event_inbox (event_id) SELECT event_id FROM event
RETURNING event_id, NULL::bigint AS seq
