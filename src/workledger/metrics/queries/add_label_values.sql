-- Promise: new values of open labels are remembered.
-- Safe under concurrency: written under the lock on the consumer; a value that is there already is an error, not a
-- count too many.
INSERT INTO metric_label_values (domain, value, first_position)
SELECT domain, value, first_position
FROM jsonb_to_recordset($1::jsonb) AS added (domain text, value text, first_position bigint)
