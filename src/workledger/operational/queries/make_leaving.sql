-- Promise: a table of this session's own for the workflows that are being archived.
-- Safe under concurrency: temporary tables are nobody else's.
CREATE TEMPORARY TABLE leaving_workflows (workflow_id text PRIMARY KEY, first_position bigint, last_position bigint, digest text)
