-- Promise: those of the workflows $1 that nobody is writing to, locked, with their conversations that leave.
-- Safe under concurrency: row locks in the order of the ids; what is locked elsewhere is left for another time.
SELECT w.workflow_id, g.digest, g.first_position, g.last_position,
       ARRAY(SELECT c.conversation_id FROM pg_temp.leaving_conversations c
             WHERE c.workflow_id = w.workflow_id ORDER BY 1) AS conversations,
       ARRAY(SELECT f.feedback_id FROM pg_temp.leaving_feedback f
             WHERE f.workflow_id = w.workflow_id ORDER BY 1) AS feedback
FROM workflows w JOIN pg_temp.leaving_workflows g ON g.workflow_id = w.workflow_id
WHERE w.workflow_id = ANY ($1)
ORDER BY w.workflow_id
FOR UPDATE OF w SKIP LOCKED
