-- Promise: one transaction at a time may seal; whoever comes meanwhile is told so and does not wait.
-- Safe under concurrency: an advisory lock of the transaction, released by its end, whatever ends it.
SELECT pg_try_advisory_xact_lock(hashtextextended(current_schema() || '.seals', 0))
