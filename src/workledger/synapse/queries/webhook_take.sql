-- Promise: gives the webhook to one deliverer for $3 seconds, unless another has it, or it is disabled.
-- Safe under concurrency: the row is locked while it is updated, and whoever comes second sees what the first one wrote.
UPDATE webhooks SET taken_by = $2, taken_until = now() + $3::float8 * interval '1 second'
WHERE name = $1 AND disabled_at IS NULL AND (taken_by = $2 OR taken_until IS NULL OR taken_until < now())
RETURNING name
