-- Promise: how many messages stand in the given parts ($2 to $3 each) of a conversation, and the one just before the last
-- page of $4 (NULL when one page holds all).
-- Safe under concurrency: one snapshot.
WITH said AS (
    SELECT m.seq
    FROM unnest($2::bigint[], $3::bigint[]) AS run (first_seq, last_seq)
    JOIN messages m ON m.conversation_id = $1 AND m.seq BETWEEN run.first_seq AND run.last_seq
    WHERE m.removed_at IS NULL
)
SELECT (SELECT count(*) FROM said) AS total, (SELECT seq FROM said ORDER BY seq DESC OFFSET $4 LIMIT 1) AS last
