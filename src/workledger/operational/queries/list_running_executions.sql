-- Promise: executions running now, oldest first; work of a worker whose lease has passed is left out.
-- Safe under concurrency: one snapshot; leases are judged by the server's clock.
SELECT x.execution_id, x.workflow_id, task_name, status, NULL::jsonb AS input_data, NULL::jsonb AS output_data, error, retry_count, execution_time_ms,
       x.created_at, x.started_at, completed_at, kind, parent_execution_id, step_key, input_digest, x.worker_id,
       error_type, NULL AS error_traceback, input_tokens, output_tokens, cost_usd, model, metadata
FROM task_executions x
WHERE x.status = 'running'
  AND NOT EXISTS (
      SELECT FROM workers k
      WHERE k.worker_id = x.worker_id
        AND (k.stopped_at IS NOT NULL OR k.lost_at IS NOT NULL
             OR k.heartbeat_at < now() - k.lease_s * interval '1 second'))
ORDER BY x.started_at, x.execution_id
LIMIT $1
