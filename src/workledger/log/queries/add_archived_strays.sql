-- Promise: which workflows have events in a file of the archive ($1) outside of the span that is known of them: those
-- that no workflow was recorded for, and what was recorded after a workflow was archived.
-- Safe under concurrency: one archiver at a time; a span never changes.
INSERT INTO archived_strays (workflow_id, archive)
SELECT f.workflow_id, $1
FROM unnest($2::text[], $3::bigint[], $4::bigint[]) AS f (workflow_id, first_position, last_position)
WHERE NOT EXISTS (
    SELECT FROM archived_workflows w
    WHERE w.workflow_id = f.workflow_id AND w.first_position <= f.first_position AND w.last_position >= f.last_position)
ON CONFLICT DO NOTHING
