-- Promise: every bucket as it stands.
-- Safe under concurrency: one snapshot.
SELECT name, labels, upper_bound, observations, total FROM metric_histograms
