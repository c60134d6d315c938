-- Promise: each hourly counter grows by its increment.
-- Safe under concurrency: written under the lock on the consumer, in the transaction that moves its cursor.
INSERT INTO metric_hours AS h (name, hour, labels, value)
SELECT name, hour, labels, value
FROM jsonb_to_recordset($1::jsonb) AS added (name text, hour timestamptz, labels text[], value numeric)
ON CONFLICT (name, hour, labels) DO UPDATE SET value = h.value + excluded.value
