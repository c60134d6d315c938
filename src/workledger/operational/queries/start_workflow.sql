-- Promise: a workflow's row and its `workflow.created` or `workflow.started` event appear together, once.
-- Safe under concurrency: the primary key decides who creates it. A pending workflow is started by the update
-- branch under its row lock; any other state leaves the row alone and writes no event. An id that is archived is not
-- used again; a trigger says so to who comes while it is being archived.
WITH change AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS c (
        n integer, event_id uuid, event_type text, entity_type text, entity_id text, workflow_id text,
        severity text, created_at timestamptz, recorded_at timestamptz, expected text[], payload jsonb)
), started AS (
    INSERT INTO workflows AS w (
        workflow_id, name, workflow_type, status, total_steps, state_data, input_data, metadata, tags,
        definition_version, parent_workflow_id, conversation_id, subject, trace_id, worker_id,
        created_at, updated_at, started_at)
    SELECT c.entity_id, p.name, p.workflow_type,
           CASE c.event_type WHEN 'workflow.created' THEN 'pending' ELSE 'running' END,
           coalesce(p.total_steps, 0), coalesce(p.state_data, '{}'), c.payload -> 'input',
           coalesce(p.metadata, '{}'), coalesce(p.tags, '{}'), p.definition_version, p.parent_workflow_id,
           p.conversation_id, p.subject, p.trace_id, p.worker_id, c.created_at, coalesce(c.recorded_at, now()),
           CASE c.event_type WHEN 'workflow.started' THEN c.created_at END
    FROM change c
    CROSS JOIN LATERAL jsonb_to_record(c.payload) AS p (
        name text, workflow_type text, total_steps integer, state_data jsonb, metadata jsonb, tags text[],
        definition_version text, parent_workflow_id text, conversation_id text, subject text, trace_id text,
        worker_id text)
    WHERE NOT EXISTS (SELECT FROM archived_workflows a WHERE a.workflow_id = c.entity_id)
    ON CONFLICT (workflow_id) DO UPDATE
    SET status = 'running', started_at = excluded.started_at, updated_at = excluded.updated_at,
        worker_id = excluded.worker_id
    WHERE w.status = 'pending' AND excluded.status = 'running'
    RETURNING w.workflow_id
), event AS (
    INSERT INTO events (
        event_id, event_type, entity_type, entity_id, workflow_id, severity, created_at, payload)
    SELECT c.event_id, c.event_type, c.entity_type, c.entity_id, c.workflow_id, c.severity, c.created_at, c.payload
    FROM change c
    WHERE c.recorded_at IS NULL AND c.entity_id = ANY (ARRAY(SELECT workflow_id FROM started))
    RETURNING event_id
)
INSERT INTO event_inbox (event_id) SELECT event_id FROM event
RETURNING event_id, NULL::bigint AS seq
