-- Promise: the tables are empty, to be filled again in the same transaction.
-- Safe under concurrency: written under the lock on the consumer; readers see the old rows until the commit.
WITH counters AS (DELETE FROM metric_counters),
     histograms AS (DELETE FROM metric_histograms),
     hours AS (DELETE FROM metric_hours)
DELETE FROM metric_label_values
