-- Promise: the event is with the webhook's dead letters, once, with the reason that was given last.
-- Safe under concurrency: the primary key decides.
INSERT INTO webhook_dead_letters (webhook, position, event_id, event_type, attempts, reason)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (webhook, position) DO UPDATE
SET attempts = excluded.attempts, reason = excluded.reason, failed_at = now()
