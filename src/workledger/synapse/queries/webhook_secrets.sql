-- Promise: the webhook signs with these secrets from its next delivery on.
-- Safe under concurrency: one row.
UPDATE webhooks SET secrets = $2 WHERE name = $1 RETURNING name
