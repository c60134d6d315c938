-- Promise: how executions that ended in a time ($1 to $2) ended and how long they took, together or by task ($4) and by
-- day in UTC ($5).
-- Safe under concurrency: one snapshot.
SELECT CASE WHEN $4 THEN task_name END AS name,
       CASE WHEN $5 THEN date_trunc('day', completed_at, 'UTC') END AS day,
       count(*) AS total,
       count(*) FILTER (WHERE status = 'completed') AS completed,
       count(*) FILTER (WHERE status = 'failed') AS failed,
       count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
       percentile_cont(ARRAY[0.5, 0.9, 0.95, 0.99]) WITHIN GROUP (ORDER BY execution_time_ms) AS percentiles_ms,
       max(execution_time_ms) AS slowest_ms
FROM task_executions
WHERE completed_at >= $1 AND completed_at < $2
  AND ($3::text IS NULL OR task_name = $3)
GROUP BY 1, 2
ORDER BY 2 NULLS FIRST, 1 NULLS FIRST
