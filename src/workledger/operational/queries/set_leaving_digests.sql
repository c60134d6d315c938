-- Promise: it is known what all rows of each workflow that leaves were when they were written to files.
-- Safe under concurrency: temporary tables are nobody else's.
UPDATE pg_temp.leaving_workflows g SET digest = d.digest
FROM unnest($1::text[], $2::text[]) AS d (workflow_id, digest) WHERE d.workflow_id = g.workflow_id
