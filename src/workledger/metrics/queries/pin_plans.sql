-- Promise: for this transaction, a batch is read by its keys, whatever the statistics of a young table say.
-- Safe under concurrency: a setting of the transaction.
SELECT set_config(name, value, true)
FROM (VALUES ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), ('enable_seqscan', 'off'), ('jit', 'off'))
    AS setting (name, value)
