-- Promise: the model calls of one workflow (with $2: and of all it started, at any depth) by model: calls, tokens, cost.
-- A call may be reported on its execution, on its message or on both: where the executions of a workflow report, they
-- are counted, else its messages. Of executions within each other the innermost that report are counted.
-- Safe under concurrency: one snapshot.
WITH RECURSIVE family AS (
    SELECT $1::text AS workflow_id
    UNION
    SELECT w.workflow_id FROM family f JOIN workflows w ON w.parent_workflow_id = f.workflow_id WHERE $2
), reporting AS (
    SELECT x.workflow_id, x.execution_id, x.parent_execution_id, x.model, x.input_tokens, x.output_tokens, x.cost_usd
    FROM family f JOIN task_executions x ON x.workflow_id = f.workflow_id
    WHERE x.input_tokens IS NOT NULL OR x.output_tokens IS NOT NULL OR x.cost_usd IS NOT NULL
), around AS (
    SELECT parent_execution_id AS execution_id FROM reporting WHERE parent_execution_id IS NOT NULL
    UNION
    SELECT x.parent_execution_id
    FROM around a JOIN task_executions x ON x.execution_id = a.execution_id
    WHERE x.parent_execution_id IS NOT NULL
), call AS (
    SELECT model, input_tokens, output_tokens, cost_usd
    FROM reporting r
    WHERE NOT EXISTS (SELECT FROM around a WHERE a.execution_id = r.execution_id)
    UNION ALL
    SELECT m.model, m.input_tokens, m.output_tokens, m.cost_usd
    FROM family f JOIN messages m ON m.workflow_id = f.workflow_id
    WHERE (m.input_tokens IS NOT NULL OR m.output_tokens IS NOT NULL OR m.cost_usd IS NOT NULL)
      AND NOT EXISTS (SELECT FROM reporting r WHERE r.workflow_id = m.workflow_id)
)
SELECT model, count(*) AS calls, coalesce(sum(input_tokens), 0)::bigint AS input_tokens,
       coalesce(sum(output_tokens), 0)::bigint AS output_tokens, coalesce(sum(cost_usd), 0) AS cost_usd,
       count(*) FILTER (WHERE cost_usd IS NULL) AS calls_without_cost
FROM call
GROUP BY model
ORDER BY sum(cost_usd) DESC NULLS LAST, model
