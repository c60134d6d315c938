-- Promise: the feedback rows of this batch.
-- Safe under concurrency: an id that is taken is a unique violation and undoes the whole batch.
INSERT INTO feedback (
    feedback_id, workflow_id, execution_id, message_id, name, score, label, comment, source, created_at)
SELECT c.payload ->> 'feedback_id', c.workflow_id, c.payload ->> 'execution_id', c.payload ->> 'message_id',
       c.payload ->> 'name', (c.payload -> 'score')::double precision, c.payload ->> 'label',
       c.payload ->> 'comment', c.payload ->> 'source', c.created_at
FROM bulk_changes c
WHERE c.event_type = 'feedback.recorded'
