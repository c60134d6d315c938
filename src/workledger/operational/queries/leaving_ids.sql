-- Promise: the workflows that leave, in the order of their ids, one page after $1.
-- Safe under concurrency: temporary tables are nobody else's.
SELECT workflow_id FROM pg_temp.leaving_workflows WHERE workflow_id > $1 ORDER BY workflow_id LIMIT $2
