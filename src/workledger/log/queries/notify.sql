-- Promise: whoever listens hears once per batch that the log has grown.
-- Safe under concurrency: delivered at commit; a lost notification costs a listener one polling interval.
SELECT pg_notify($1, $2)
