-- Promise: the files that have the rows of an archived workflow ($1), and when it was archived; none for another.
-- Safe under concurrency: one snapshot; what is archived stays so.
SELECT a.name, a.kind, a.source, a.url, a.sha256, a.size_bytes, a.rows, a.first_position, a.last_position, a.first_time,
       a.last_time, a.erased, a.format_version, a.event_id::text, a.archived_at, a.removed_at, w.archived_at AS left_at
FROM archived_workflows w
JOIN archives a ON a.source = w.archive
WHERE w.workflow_id = $1
