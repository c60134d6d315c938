-- Promise: a definition (name and version) is registered once, with its `definition.registered` event.
-- Safe under concurrency: the second registration meets ON CONFLICT and writes nothing.
WITH change AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS c (
        n integer, event_id uuid, event_type text, entity_type text, entity_id text, workflow_id text,
        severity text, created_at timestamptz, recorded_at timestamptz, expected text[], payload jsonb)
), registered AS (
    INSERT INTO definitions (name, version, steps, source_digest, created_at)
    SELECT p.name, p.version, coalesce(p.steps, '[]'), p.source_digest, c.created_at
    FROM change c
    CROSS JOIN LATERAL jsonb_to_record(c.payload) AS p (name text, version text, steps jsonb, source_digest text)
    ON CONFLICT (name, version) DO NOTHING
    RETURNING name, version
), event AS (
    INSERT INTO events (
        event_id, event_type, entity_type, entity_id, workflow_id, severity, created_at, payload)
    SELECT c.event_id, c.event_type, c.entity_type, c.entity_id, c.workflow_id, c.severity, c.created_at, c.payload
    FROM change c JOIN registered r ON r.name = c.payload ->> 'name' AND r.version = c.payload ->> 'version'
    WHERE c.recorded_at IS NULL
    RETURNING event_id
)
INSERT INTO event_inbox (event_id) SELECT event_id FROM event
RETURNING event_id, NULL::bigint AS seq
