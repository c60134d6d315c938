-- Promise: there is a webhook of this name with these properties; no row when there was one already.
-- Safe under concurrency: the primary key decides.
INSERT INTO webhooks (name, url, event_types, secrets, allow_private, max_attempts)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (name) DO NOTHING
RETURNING name
