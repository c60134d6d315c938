-- Promise: for each of the workflows $1 that leave, one digest of all rows that leave with it, as they are now.
-- Safe under concurrency: one snapshot; under the locks of lock_leaving, what was hashed cannot change any more.
SELECT g.workflow_id, md5(concat_ws(chr(10),
    (SELECT w::text FROM workflows w WHERE w.workflow_id = g.workflow_id),
    (SELECT string_agg(x::text, chr(10) ORDER BY x.execution_id) FROM task_executions x
     WHERE x.workflow_id = g.workflow_id),
    (SELECT string_agg(concat_ws(chr(10), v::text, (
         SELECT string_agg(m::text, chr(10) ORDER BY m.seq) FROM messages m
         WHERE m.conversation_id = v.conversation_id)), chr(10) ORDER BY v.conversation_id)
     FROM conversations v JOIN pg_temp.leaving_conversations c ON c.conversation_id = v.conversation_id
     WHERE c.workflow_id = g.workflow_id),
    (SELECT string_agg(f::text, chr(10) ORDER BY f.feedback_id)
     FROM feedback f JOIN pg_temp.leaving_feedback n ON n.feedback_id = f.feedback_id
     WHERE n.workflow_id = g.workflow_id)))
FROM pg_temp.leaving_workflows g
WHERE g.workflow_id = ANY ($1)
