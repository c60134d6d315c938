-- Promise: how many workflows stand in each status, counted to the limit ($1) and no further, so that the answer
-- comes as fast from a hundred million rows as from a hundred.
-- Safe under concurrency: one snapshot.
SELECT s.status,
       (SELECT count(*) FROM (SELECT FROM workflows w WHERE w.status = s.status LIMIT $1) AS counted) AS workflows
FROM unnest(ARRAY['pending', 'running', 'completed', 'failed', 'cancelled']) AS s (status)
