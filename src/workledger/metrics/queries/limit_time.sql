-- Promise: no statement of this transaction runs longer than $1 milliseconds.
-- Safe under concurrency: a setting of the transaction.
SELECT set_config('statement_timeout', $1, true)
