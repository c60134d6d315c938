-- Promise: which of these workflow ids are taken, archived ones too, with the digest of what was imported under them.
-- Safe under concurrency: one snapshot.
SELECT workflow_id, metadata ->> 'source_digest' FROM workflows WHERE workflow_id = ANY ($1)
UNION ALL
SELECT workflow_id, source_digest FROM archived_workflows WHERE workflow_id = ANY ($1)
