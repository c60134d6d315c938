-- Promise: every judgement of a workflow, of its executions and of its messages, oldest first.
-- Safe under concurrency: one snapshot.
SELECT feedback_id, workflow_id, execution_id, message_id, name, score, label, comment, source, created_at
FROM feedback
WHERE workflow_id = $1
ORDER BY created_at, feedback_id
