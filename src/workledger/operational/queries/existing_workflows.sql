-- Promise: which of these workflow ids are taken, with the digest of what was imported under them.
-- Safe under concurrency: one snapshot.
SELECT workflow_id, metadata ->> 'source_digest' FROM workflows WHERE workflow_id = ANY ($1)
