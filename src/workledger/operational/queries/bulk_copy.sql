-- Promise: changes arrive in the stage in their order.
-- Safe under concurrency: the stage is this session's own.
COPY bulk_changes (n, event_id, event_type, entity_type, entity_id, workflow_id, severity, created_at, payload)
FROM STDIN
