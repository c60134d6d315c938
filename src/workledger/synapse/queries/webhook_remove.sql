-- Promise: the webhook, its cursor and its dead letters are gone; no row when it was not there.
-- Safe under concurrency: whoever delivers to it finds it gone when it next looks.
WITH cursor_gone AS (DELETE FROM consumers WHERE name = 'webhook:' || $1)
DELETE FROM webhooks WHERE name = $1 RETURNING name
