-- Promise: the event is no dead letter any more.
-- Safe under concurrency: one row.
DELETE FROM webhook_dead_letters WHERE webhook = $1 AND position = $2
