-- Promise: the messages of a conversation in the order of their seq; one page by seq. Removed ones only on request.
-- JSON comes as text, so that an absent key (NULL) and a null (the text 'null') stay apart.
-- Safe under concurrency: one snapshot.
SELECT message_id, conversation_id, seq, role, content::text AS content, tool_calls::text AS tool_calls,
       tool_call_id, name, extra::text AS extra, workflow_id,
       execution_id, parent_seq, model, input_tokens, output_tokens, cost_usd, created_at, removed_at
FROM messages
WHERE conversation_id = $1 AND seq > $2 AND ($3 OR removed_at IS NULL)
ORDER BY seq
LIMIT $4
