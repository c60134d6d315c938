-- Promise: conversations in the order in which they were made, a page at a time: the best score that any workflow they
-- belong to was given, and the tool definitions that the newest of these workflows recorded.
-- Safe under concurrency: one snapshot; a page begins after the last conversation of the one before.
SELECT c.conversation_id, c.created_at,
       (SELECT max(f.score) FROM feedback f WHERE f.workflow_id = ANY (own.workflow_ids)) AS score,
       (SELECT (w.metadata -> 'tools')::text
        FROM workflows w
        WHERE w.workflow_id = ANY (own.workflow_ids) AND w.metadata ? 'tools'
        ORDER BY w.created_at DESC, w.workflow_id DESC
        LIMIT 1) AS tools
FROM conversations c
CROSS JOIN LATERAL (
    SELECT array(
        SELECT w.workflow_id FROM workflows w WHERE w.conversation_id = c.conversation_id
        UNION
        SELECT m.workflow_id FROM messages m
        WHERE m.conversation_id = c.conversation_id AND m.workflow_id IS NOT NULL) AS workflow_ids
) AS own
WHERE (c.created_at, c.conversation_id) > ($1, $2)
ORDER BY c.created_at, c.conversation_id
LIMIT $3
