-- Promise: every counter as it stands.
-- Safe under concurrency: one snapshot.
SELECT name, labels, value FROM metric_counters
