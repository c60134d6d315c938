-- Promise: how the attempts at each task ended since an hour, the most failures first.
-- Safe under concurrency: one snapshot; reads the hourly counters, never the executions.
SELECT labels[1] AS kind, labels[2] AS task_name,
       coalesce(sum(value) FILTER (WHERE labels[3] = 'completed'), 0)::bigint AS completed,
       coalesce(sum(value) FILTER (WHERE labels[3] = 'failed'), 0)::bigint AS failed,
       coalesce(sum(value) FILTER (WHERE labels[3] = 'cancelled'), 0)::bigint AS cancelled
FROM metric_hours
WHERE name = 'workledger_task_executions_total' AND hour >= $1 AND labels[3] <> 'running'
GROUP BY 1, 2
ORDER BY failed DESC, kind, task_name
