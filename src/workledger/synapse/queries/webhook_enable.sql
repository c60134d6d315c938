-- Promise: the webhook is delivered to again, beginning at once with the event it stopped at.
-- Safe under concurrency: one row.
UPDATE webhooks SET disabled_at = NULL, disabled_reason = NULL, attempts = 0, last_error = NULL, next_attempt_at = NULL
WHERE name = $1 RETURNING name
