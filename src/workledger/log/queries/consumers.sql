-- Promise: every named reader, how far it has come, and how far behind the head it is.
-- Safe under concurrency: one snapshot.
SELECT c.name, c.position, h.position - c.position AS lag, c.updated_at, c.details
FROM consumers c CROSS JOIN log_head h
ORDER BY c.name
