-- Promise: whole batches are joined by hash, not row by row as single changes are, until the end of the transaction:
-- the stage has no statistics, and PostgreSQL would take it for one row.
-- Safe under concurrency: settings of this transaction only.
SELECT set_config('enable_hashjoin', 'on', true), set_config('enable_seqscan', 'on', true),
       set_config('enable_nestloop', 'off', true),
       set_config('plan_cache_mode', 'auto', true)
