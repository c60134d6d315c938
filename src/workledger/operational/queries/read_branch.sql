-- Promise: the messages of one branch of a conversation that stand, from its root to its leaf ($2; by default the newest
-- message), in the order of their seq; at most $4 of them after a seq ($3). JSON comes as text, so that an absent key
-- (NULL) and a null (the text 'null') stay apart.
-- Safe under concurrency: one snapshot; what a message follows never changes.
WITH RECURSIVE run AS (
    -- A run is a part of the branch in which each message follows the one just before it. It begins at a fork, which
    -- says which earlier message it follows, or at the first message of all.
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
    WHERE r.follows > $3
)
SELECT m.message_id, m.conversation_id, m.seq, m.role, m.content::text AS content, m.tool_calls::text AS tool_calls,
       m.tool_call_id, m.name, m.extra::text AS extra, m.workflow_id,
       m.execution_id, m.parent_seq, m.model, m.input_tokens, m.output_tokens, m.cost_usd, m.created_at, m.removed_at
FROM run r
CROSS JOIN LATERAL (
    SELECT * FROM messages
    WHERE conversation_id = $1 AND seq BETWEEN greatest(r.first_seq, $3 + 1) AND r.last_seq AND removed_at IS NULL
    ORDER BY seq
    LIMIT $4) AS m
ORDER BY m.seq
LIMIT $4
