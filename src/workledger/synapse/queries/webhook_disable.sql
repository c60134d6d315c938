-- Promise: nothing more is delivered to the webhook until it is enabled; the first reason stays.
-- Safe under concurrency: one row.
UPDATE webhooks SET disabled_at = coalesce(disabled_at, now()), disabled_reason = coalesce(disabled_reason, $2)
WHERE name = $1 RETURNING name
