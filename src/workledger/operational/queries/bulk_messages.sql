-- Promise: the rows of messages, with the seq of their place in the batch.
-- Safe under concurrency: their conversations began in this batch, so nobody else can add to them.
INSERT INTO messages (
    message_id, conversation_id, seq, role, content, tool_calls, tool_call_id, name, extra, workflow_id,
    execution_id, parent_seq, model, input_tokens, output_tokens, cost_usd, created_at)
SELECT c.payload ->> 'message_id', c.entity_id, row_number() OVER (PARTITION BY c.entity_id ORDER BY c.n),
       c.payload #>> '{message,role}', c.payload #> '{message,content}', c.payload #> '{message,tool_calls}',
       c.payload #>> '{message,tool_call_id}', c.payload #>> '{message,name}', coalesce(c.payload -> 'extra', '{}'),
       c.workflow_id, c.payload ->> 'execution_id', (c.payload -> 'parent_seq')::bigint, c.payload ->> 'model',
       (c.payload -> 'input_tokens')::bigint, (c.payload -> 'output_tokens')::bigint,
       (c.payload -> 'cost_usd')::numeric, c.created_at
FROM bulk_changes c
WHERE c.event_type = 'message.added'
