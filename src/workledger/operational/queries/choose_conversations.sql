-- Promise: the conversations of the workflows that leave, not written to since $1, and to which no other workflow of the
-- state belongs; each goes with the last of its workflows.
-- Safe under concurrency: one snapshot, the caller's; each is looked at again, locked, before it goes.
INSERT INTO pg_temp.leaving_conversations (conversation_id, workflow_id)
WITH mentioned AS (
    SELECT w.conversation_id, w.workflow_id
    FROM workflows w JOIN pg_temp.leaving_workflows g USING (workflow_id)
    WHERE w.conversation_id IS NOT NULL
    UNION
    SELECT m.conversation_id, m.workflow_id
    FROM messages m JOIN pg_temp.leaving_workflows g USING (workflow_id)
)
SELECT v.conversation_id, max(r.workflow_id)
FROM conversations v JOIN mentioned r USING (conversation_id)
WHERE v.updated_at < $1
  AND NOT EXISTS (
      SELECT FROM workflows w
      WHERE w.conversation_id = v.conversation_id
        AND NOT EXISTS (SELECT FROM pg_temp.leaving_workflows g WHERE g.workflow_id = w.workflow_id))
  AND NOT EXISTS (
      SELECT FROM messages m JOIN workflows w ON w.workflow_id = m.workflow_id
      WHERE m.conversation_id = v.conversation_id
        AND NOT EXISTS (SELECT FROM pg_temp.leaving_workflows g WHERE g.workflow_id = w.workflow_id))
GROUP BY v.conversation_id
