-- Promise: within the transaction at hand, a page of the log is read along its index and costs the same whatever
-- the size of the log: no parallel workers, no compiler, no plan that reads a whole partition.
-- Safe under concurrency: nobody else sees the settings, and they end with the transaction.
SELECT set_config(name, value, true)
FROM (VALUES ('jit', 'off'), ('max_parallel_workers_per_gather', '0'), ('plan_cache_mode', 'force_generic_plan'),
             ('enable_seqscan', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'),
             ('enable_bitmapscan', 'off')) AS s (name, value)
