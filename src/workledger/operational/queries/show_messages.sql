-- Promise: the messages that stand in the given parts ($2 to $3 each) of a conversation, in the order of their seq, as they
-- are stored, JSON as text (an absent key is NULL, a null the text 'null'); one page after a seq ($4).
-- Safe under concurrency: one snapshot.
SELECT m.message_id, m.seq, m.role, m.content::text AS content, m.tool_calls::text AS tool_calls, m.tool_call_id, m.name,
       m.extra::text AS extra, m.workflow_id, m.execution_id, m.parent_seq, m.model, m.input_tokens, m.output_tokens,
       m.cost_usd, m.created_at
FROM unnest($2::bigint[], $3::bigint[]) AS run (first_seq, last_seq)
CROSS JOIN LATERAL (
    SELECT * FROM messages
    WHERE conversation_id = $1 AND seq BETWEEN greatest(run.first_seq, $4::bigint + 1) AND run.last_seq
      AND removed_at IS NULL
    ORDER BY seq
    LIMIT $5) AS m
ORDER BY m.seq
LIMIT $5
