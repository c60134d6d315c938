-- Promise: the messages of a conversation that stand, in the order of their seq, as they are stored, JSON as text (an
-- absent key is NULL, a null the text 'null'); one page after a seq ($2).
-- Safe under concurrency: one snapshot.
SELECT message_id, seq, role, content::text AS content, tool_calls::text AS tool_calls, tool_call_id, name,
       extra::text AS extra, workflow_id, execution_id, parent_seq, model, input_tokens, output_tokens, cost_usd, created_at
FROM messages
WHERE conversation_id = $1 AND seq > $2 AND removed_at IS NULL
ORDER BY seq
LIMIT $3
