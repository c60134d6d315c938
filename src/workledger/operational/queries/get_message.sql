-- Promise: one message of a conversation by its seq, removed or not.
-- Safe under concurrency: one snapshot.
SELECT message_id, conversation_id, seq, role, content::text AS content, tool_calls::text AS tool_calls,
       tool_call_id, name, extra::text AS extra, workflow_id,
       execution_id, parent_seq, model, input_tokens, output_tokens, cost_usd, created_at, removed_at
FROM messages
WHERE conversation_id = $1 AND seq = $2
