-- Promise: each bucket grows by its increment.
-- Safe under concurrency: written under the lock on the consumer, in the transaction that moves its cursor.
INSERT INTO metric_histograms AS h (name, labels, upper_bound, observations, total)
SELECT name, labels, upper_bound, observations, total
FROM jsonb_to_recordset($1::jsonb) AS added (
    name text, labels text[], upper_bound double precision, observations bigint, total numeric)
ON CONFLICT (name, labels, upper_bound) DO UPDATE
SET observations = h.observations + excluded.observations, total = h.total + excluded.total
