-- Promise: every hourly counter as it stands.
-- Safe under concurrency: one snapshot.
SELECT name, hour, labels, value FROM metric_hours
