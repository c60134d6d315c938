-- Promise: the parts of a conversation's newest branch in which each message follows the one just before it, as the first
-- and the last seq of each; one part where nothing was ever said again.
-- Safe under concurrency: one snapshot; what a message follows never changes.
WITH RECURSIVE run AS (
    SELECT coalesce(f.seq, 1) AS first_seq, c.last_seq, coalesce(f.parent_seq, 0) AS follows
    FROM conversations c
    LEFT JOIN LATERAL (
        SELECT seq, parent_seq FROM messages
        WHERE conversation_id = $1 AND seq <= c.last_seq AND parent_seq < seq - 1
        ORDER BY seq DESC LIMIT 1) AS f ON true
    WHERE c.conversation_id = $1
    UNION ALL
    SELECT coalesce(f.seq, 1), r.follows, coalesce(f.parent_seq, 0)
    FROM run r
    LEFT JOIN LATERAL (
        SELECT seq, parent_seq FROM messages
        WHERE conversation_id = $1 AND seq <= r.follows AND parent_seq < seq - 1
        ORDER BY seq DESC LIMIT 1) AS f ON true
    WHERE r.follows > 0
)
SELECT first_seq, last_seq FROM run
