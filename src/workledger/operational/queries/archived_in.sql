-- Promise: the archive that a workflow or conversation ($1, $2) is in, and the address of the file; no row when it is in
-- none.
-- Safe under concurrency: one snapshot; what is archived stays so.
SELECT g.archive, f.url
FROM (
    SELECT archive FROM archived_workflows WHERE $1::text = 'workflow' AND workflow_id = $2
    UNION ALL
    SELECT archive FROM archived_conversations WHERE $1::text = 'conversation' AND conversation_id = $2
) AS g
LEFT JOIN archives f ON f.source = g.archive AND f.kind = $1 || 's'
