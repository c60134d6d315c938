-- Promise: every change of the batch is an event, and they go into the inbox in their order.
-- Safe under concurrency: an event id that is taken is a unique violation and undoes the whole batch.
WITH event AS (
    INSERT INTO events (event_id, event_type, entity_type, entity_id, workflow_id, severity, created_at, payload)
    SELECT c.event_id, c.event_type, c.entity_type, c.entity_id, c.workflow_id, c.severity, c.created_at,
           CASE c.event_type WHEN 'message.added' THEN c.payload || jsonb_build_object('seq', m.seq)
               ELSE c.payload END
    FROM bulk_changes c
    LEFT JOIN messages m ON c.event_type = 'message.added' AND m.message_id = c.payload ->> 'message_id'
    ORDER BY c.n
    RETURNING event_id
)
INSERT INTO event_inbox (event_id) SELECT event_id FROM event
