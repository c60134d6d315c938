-- Promise: the names, types and tags of the newest thousand workflows, the most used first: what a filter offers.
-- Safe under concurrency: one snapshot.
WITH recent AS (
    SELECT name, workflow_type, tags FROM workflows ORDER BY created_at DESC, workflow_id DESC LIMIT 1000
), choice AS (
    SELECT 'name' AS what, name AS value FROM recent
    UNION ALL
    SELECT 'type', workflow_type FROM recent
    UNION ALL
    SELECT 'tag', unnest(tags) FROM recent
)
SELECT what, value FROM choice WHERE value IS NOT NULL
GROUP BY what, value
ORDER BY what, count(*) DESC, value
LIMIT 300
