-- Promise: the head of the log, and the digests that events after position $1 refer to, those that wait for a position
-- included: what was committed since somebody looked, who then saw this head.
-- Safe under concurrency: one snapshot. An event that was not there then has a higher position now, or waits for one.
SELECT h.position, r.digest
FROM log_head h
LEFT JOIN LATERAL (
    SELECT jsonb_path_query(e.payload, '$.** ? (@."$workledger" == "payload").digest') #>> '{}' AS digest
    FROM (SELECT event_id FROM event_positions WHERE position > $1 UNION ALL SELECT event_id FROM event_inbox) AS new
    JOIN events e ON e.event_id = new.event_id
) AS r ON true
