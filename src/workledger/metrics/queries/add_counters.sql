-- Promise: each counter grows by its increment.
-- Safe under concurrency: written under the lock on the consumer, in the transaction that moves its cursor.
INSERT INTO metric_counters AS c (name, labels, value)
SELECT name, labels, value
FROM jsonb_to_recordset($1::jsonb) AS added (name text, labels text[], value numeric)
ON CONFLICT (name, labels) DO UPDATE SET value = c.value + excluded.value
