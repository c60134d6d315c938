-- Promise: the id $2, and those of the newest $3 workflows that have a text ($1, an ILIKE pattern) in them.
-- Safe under concurrency: one snapshot; reads the index of the newest and nothing else.
SELECT workflow_id FROM workflows WHERE workflow_id = $2
UNION
SELECT workflow_id
FROM (SELECT workflow_id FROM workflows ORDER BY created_at DESC, workflow_id DESC LIMIT $3) AS newest
WHERE workflow_id ILIKE $1
