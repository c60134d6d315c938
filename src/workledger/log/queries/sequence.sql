-- Promise: committed events get the next dense positions, each once; an entity's events in their own order.
-- Safe under concurrency: runs under the lock on `log_head`, with a snapshot taken after it. Only visible keys are
-- taken: a writer that is stuck delays its own events and nobody else's. A later event of an entity is written
-- under the row lock that the earlier one's transaction held until its commit, so it is never visible without
-- the earlier one, and its inbox number is higher.
WITH taken AS (
    DELETE FROM event_inbox
    WHERE seq = ANY (ARRAY(SELECT seq FROM event_inbox ORDER BY seq LIMIT $1))
    RETURNING seq, event_id
), placed AS (
    INSERT INTO event_positions (position, event_id)
    SELECT h.position + row_number() OVER (ORDER BY t.seq), t.event_id
    FROM taken t CROSS JOIN log_head h
    RETURNING position
), moved AS (
    SELECT count(*) AS placed, max(position) AS head FROM placed
)
UPDATE log_head SET position = moved.head FROM moved WHERE moved.placed > 0
RETURNING moved.placed, moved.head
