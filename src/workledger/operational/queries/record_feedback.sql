-- Promise: a feedback row and its `feedback.recorded` event appear together, once.
-- Safe under concurrency: the primary key decides; the second writer writes nothing. Of several in one batch with
-- the same id, the first is taken.
WITH change AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS c (
        n integer, event_id uuid, event_type text, entity_type text, entity_id text, workflow_id text,
        severity text, created_at timestamptz, recorded_at timestamptz, expected text[], payload jsonb)
), fresh AS (
    SELECT DISTINCT ON (c.payload ->> 'feedback_id') c.*
    FROM change c
    ORDER BY c.payload ->> 'feedback_id', c.n
), recorded AS (
    INSERT INTO feedback (
        feedback_id, workflow_id, execution_id, message_id, name, score, label, comment, source, created_at)
    SELECT p.feedback_id, c.workflow_id, p.execution_id, p.message_id, p.name, p.score, p.label, p.comment,
           p.source, c.created_at
    FROM fresh c
    CROSS JOIN LATERAL jsonb_to_record(c.payload) AS p (
        feedback_id text, execution_id text, message_id text, name text, score double precision, label text,
        comment text, source text)
    ON CONFLICT (feedback_id) DO NOTHING
    RETURNING feedback_id
), event AS (
    INSERT INTO events (
        event_id, event_type, entity_type, entity_id, workflow_id, severity, created_at, payload)
    SELECT c.event_id, c.event_type, c.entity_type, c.entity_id, c.workflow_id, c.severity, c.created_at, c.payload
    FROM fresh c JOIN recorded r ON r.feedback_id = c.payload ->> 'feedback_id'
    WHERE c.recorded_at IS NULL
    RETURNING event_id
)
INSERT INTO event_inbox (event_id) SELECT event_id FROM event
RETURNING event_id, NULL::bigint AS seq
