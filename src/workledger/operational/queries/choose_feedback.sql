-- Promise: the feedback on workflows that leave, on their executions, and on the messages of conversations that leave.
-- Safe under concurrency: one snapshot, the caller's; what comes later is not named, and stays.
INSERT INTO pg_temp.leaving_feedback (feedback_id, workflow_id)
SELECT feedback_id, max(workflow_id)
FROM (
    SELECT f.feedback_id, g.workflow_id
    FROM feedback f JOIN pg_temp.leaving_workflows g USING (workflow_id)
    UNION ALL
    SELECT f.feedback_id, x.workflow_id
    FROM feedback f JOIN task_executions x USING (execution_id) JOIN pg_temp.leaving_workflows g
        ON g.workflow_id = x.workflow_id
    UNION ALL
    SELECT f.feedback_id, v.workflow_id
    FROM feedback f JOIN messages m USING (message_id) JOIN pg_temp.leaving_conversations v
        ON v.conversation_id = m.conversation_id
) AS judged
GROUP BY feedback_id
