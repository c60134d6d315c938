-- Promise: until the end of the transaction the log is read by its indexes, in order, by one process, uncompiled:
-- a page costs the same at a thousand events and at a hundred million.
-- Safe under concurrency: settings of this transaction alone.
SELECT set_config(name, value, true)
FROM (VALUES ('enable_seqscan', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), ('jit', 'off'),
             ('max_parallel_workers_per_gather', '0'), ('plan_cache_mode', 'force_generic_plan')) AS s (name, value)
