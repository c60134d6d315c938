-- Promise: every way in which positions are not 1 to head, each with one event, and each event at one position or
-- waiting for one; nothing when all is well. At most $1 of each kind.
-- Safe under concurrency: one snapshot, the caller's; the sequencer moves keys and head in one transaction.
(SELECT 'missing positions' AS fault, previous + 1 AS from_position, position - 1 AS to_position, NULL::uuid AS event_id
 FROM (SELECT position, lag(position, 1, 0::bigint) OVER (ORDER BY position) AS previous FROM event_positions) AS p
 WHERE position > previous + 1
 ORDER BY position LIMIT $1)
UNION ALL
(SELECT 'head is not the last position', h.position, coalesce(max(p.position), 0), NULL
 FROM log_head h LEFT JOIN event_positions p ON true
 GROUP BY h.position
 HAVING h.position <> coalesce(max(p.position), 0))
UNION ALL
(SELECT 'position without an event', p.position, p.position, p.event_id
 FROM event_positions p LEFT JOIN events e ON e.event_id = p.event_id
 WHERE e.event_id IS NULL
 ORDER BY p.position LIMIT $1)
UNION ALL
(SELECT 'event without a position', NULL, NULL, e.event_id
 FROM events e
 LEFT JOIN event_positions p ON p.event_id = e.event_id
 LEFT JOIN event_inbox i ON i.event_id = e.event_id
 WHERE p.event_id IS NULL AND i.event_id IS NULL
 ORDER BY e.event_id LIMIT $1)
UNION ALL
(SELECT 'waiting for a position without an event', NULL, NULL, i.event_id
 FROM event_inbox i LEFT JOIN events e ON e.event_id = i.event_id
 WHERE e.event_id IS NULL
 ORDER BY i.seq LIMIT $1)
UNION ALL
(SELECT 'waiting for a position it has already', p.position, p.position, i.event_id
 FROM event_inbox i JOIN event_positions p ON p.event_id = i.event_id
 ORDER BY p.position LIMIT $1)
UNION ALL
(SELECT 'waiting for a position twice', NULL, NULL, i.event_id
 FROM event_inbox i
 GROUP BY i.event_id HAVING count(*) > 1
 ORDER BY i.event_id LIMIT $1)
