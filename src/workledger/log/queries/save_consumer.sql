-- Promise: a reader's cursor moves forward only; details are replaced.
-- Safe under concurrency: two copies of a reader meet on the row; the lower position changes nothing.
INSERT INTO consumers AS c (name, position, details, updated_at) VALUES ($1, $2, $3::jsonb, now())
ON CONFLICT (name) DO UPDATE
SET position = excluded.position, details = excluded.details, updated_at = now()
WHERE c.position <= excluded.position
RETURNING c.position
