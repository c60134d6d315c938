-- Promise: how many payloads were erased, and those (at most $1) for which no event in the log says who erased them.
-- Safe under concurrency: one snapshot.
SELECT (SELECT count(*) FROM erased_payloads),
       ARRAY(SELECT x.event_id::text FROM erased_payloads x
             WHERE NOT EXISTS (SELECT FROM events e
                               WHERE e.event_id = x.erased_by AND e.event_type LIKE '%.erased')
             ORDER BY x.event_id LIMIT $1)
