-- Promise: remembers over restarts that an event was refused: how often, why, and when to try it again.
-- Safe under concurrency: only who has the webhook writes here.
UPDATE webhooks
SET attempts = attempts + 1, last_error = $3, next_attempt_at = now() + $4::float8 * interval '1 second'
WHERE name = $1 AND taken_by = $2
RETURNING attempts
