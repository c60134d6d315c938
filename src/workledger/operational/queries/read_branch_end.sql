-- Promise: the last $4 messages of one branch of a conversation that stand, before a seq ($3; NULL: at its leaf), newest
-- first: the page that a reader sees when the conversation is opened, and the pages above it.
-- Safe under concurrency: one snapshot; what a message follows never changes.
WITH RECURSIVE run AS (
    SELECT coalesce(f.seq, 1) AS first_seq, c.leaf AS last_seq, coalesce(f.parent_seq, 0) AS follows
    FROM (SELECT coalesce($2::bigint, last_seq) AS leaf FROM conversations WHERE conversation_id = $1) AS c
    LEFT JOIN LATERAL (
        SELECT seq, parent_seq FROM messages
        WHERE conversation_id = $1 AND seq <= c.leaf AND parent_seq < seq - 1
        ORDER BY seq DESC LIMIT 1) AS f ON true
    UNION ALL
    SELECT coalesce(f.seq, 1), r.follows, coalesce(f.parent_seq, 0)
    FROM run r
    LEFT JOIN LATERAL (
        SELECT seq, parent_seq FROM messages
        WHERE conversation_id = $1 AND seq <= r.follows AND parent_seq < seq - 1
        ORDER BY seq DESC LIMIT 1) AS f ON true
    WHERE r.follows > 0
)
SELECT m.message_id, m.conversation_id, m.seq, m.role, m.content::text AS content, m.tool_calls::text AS tool_calls,
       m.tool_call_id, m.name, m.extra::text AS extra, m.workflow_id,
       m.execution_id, m.parent_seq, m.model, m.input_tokens, m.output_tokens, m.cost_usd, m.created_at, m.removed_at
FROM run r
CROSS JOIN LATERAL (
    SELECT * FROM messages
    WHERE conversation_id = $1 AND seq BETWEEN r.first_seq AND least(r.last_seq, $3::bigint - 1) AND removed_at IS NULL
    ORDER BY seq DESC
    LIMIT $4) AS m
ORDER BY m.seq DESC
LIMIT $4
