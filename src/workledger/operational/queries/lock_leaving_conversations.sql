-- Promise: those of the conversations $1 that nobody is writing to, and to which no workflow of the state belongs but
-- those of $2, locked.
-- Safe under concurrency: row locks in the order of the ids; what is locked elsewhere is left for another time.
SELECT v.conversation_id
FROM conversations v
WHERE v.conversation_id = ANY ($1)
  AND NOT EXISTS (SELECT FROM workflows w
                  WHERE w.conversation_id = v.conversation_id AND NOT w.workflow_id = ANY ($2))
  AND NOT EXISTS (SELECT FROM messages m JOIN workflows w ON w.workflow_id = m.workflow_id
                  WHERE m.conversation_id = v.conversation_id AND NOT w.workflow_id = ANY ($2))
ORDER BY v.conversation_id
FOR UPDATE SKIP LOCKED
