-- Promise: every counter and every bucket, all as of one moment.
-- Safe under concurrency: one statement, one snapshot.
SELECT name, labels, value, NULL::double precision AS upper_bound, NULL::numeric AS total FROM metric_counters
UNION ALL
SELECT name, labels, observations, upper_bound, total FROM metric_histograms
ORDER BY name, labels, upper_bound
