-- Promise: the values of open labels that have series of their own.
-- Safe under concurrency: read under the lock on the consumer, which is the only writer.
SELECT domain, value, first_position FROM metric_label_values
