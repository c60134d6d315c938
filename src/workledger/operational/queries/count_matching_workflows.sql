-- Promise: how many workflows that a filter matches stand in each status; the status itself is not part of the filter.
-- Safe under concurrency: one snapshot.
SELECT status, count(*) AS workflows
FROM workflows
WHERE ($1::text IS NULL OR name = $1)
  AND ($2::text IS NULL OR workflow_type = $2)
  AND ($3::text IS NULL OR tags @> ARRAY[$3])
  AND ($4::text IS NULL OR subject = $4)
  AND ($6::text[] IS NULL OR search_words(name, error_type, error) @@ to_tsquery('simple', $5)
       OR workflow_id = ANY ($6))
GROUP BY status
