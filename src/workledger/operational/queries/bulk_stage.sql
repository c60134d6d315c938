-- Promise: a place of this session's own for the changes of one bulk transaction; emptied by the commit.
-- Safe under concurrency: temporary, so nobody else sees it.
CREATE TEMPORARY TABLE IF NOT EXISTS bulk_changes (
    n integer NOT NULL, event_id uuid NOT NULL, event_type text NOT NULL, entity_type text NOT NULL,
    entity_id text NOT NULL, workflow_id text, severity text NOT NULL, created_at timestamptz NOT NULL,
    payload jsonb NOT NULL
) ON COMMIT DELETE ROWS
