-- Promise: the leaves of a conversation, newest first: messages that no message follows, each with the seq at which its
-- branch left an older one (0 for the first). At most $2.
-- Safe under concurrency: one snapshot; what a message follows never changes.
WITH fork AS (
    SELECT seq, parent_seq FROM messages WHERE conversation_id = $1 AND parent_seq < seq - 1
), leaf AS (
    -- Only the newest message and the one before each fork can be without one that follows it.
    SELECT last_seq AS seq FROM conversations WHERE conversation_id = $1
    UNION
    SELECT seq - 1 FROM fork
    EXCEPT
    SELECT parent_seq FROM fork
)
SELECT l.seq AS leaf_seq, coalesce((SELECT max(f.seq) FROM fork f WHERE f.seq <= l.seq), 0) AS fork_seq
FROM leaf l
WHERE l.seq > 0
ORDER BY l.seq DESC
LIMIT $2
