-- Promise: every webhook by name, or the one that is named, how far it has come, and how many dead letters it has.
-- Safe under concurrency: one snapshot.
SELECT w.name, w.url, w.event_types, w.secrets, w.allow_private, w.max_attempts, w.created_at, w.disabled_reason,
       w.attempts, w.last_error, extract(epoch FROM w.next_attempt_at - now())::float8 AS next_attempt_in_s,
       coalesce(c.position, 0) AS position,
       (SELECT count(*) FROM webhook_dead_letters d WHERE d.webhook = w.name) AS dead_letters
FROM webhooks w LEFT JOIN consumers c ON c.name = 'webhook:' || w.name
WHERE $1::text IS NULL OR w.name = $1
ORDER BY w.name
