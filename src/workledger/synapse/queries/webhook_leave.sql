-- Promise: another deliverer can take the webhook at once.
-- Safe under concurrency: only who has it gives it away.
UPDATE webhooks SET taken_by = NULL, taken_until = NULL WHERE name = $1 AND taken_by = $2
