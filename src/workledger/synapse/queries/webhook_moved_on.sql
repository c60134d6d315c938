-- Promise: the event is no longer tried, because it was delivered or given up; no row for who has lost the webhook.
-- Safe under concurrency: only who has the webhook writes here.
UPDATE webhooks SET attempts = 0, last_error = NULL, next_attempt_at = NULL
WHERE name = $1 AND taken_by = $2
RETURNING name
