-- Promise: the files that hold events of a workflow ($1), and which are no longer in the database, each with the
-- positions between which they are; none for a workflow that is not archived, because what is live is never archived.
-- Safe under concurrency: one snapshot, as in archives_between.
SELECT a.name, a.kind, a.source, a.url, a.sha256, a.size_bytes, a.rows, a.first_position, a.last_position, a.first_time,
       a.last_time, a.erased, a.format_version, a.event_id::text, a.archived_at, a.removed_at,
       CASE WHEN s.archive IS NULL THEN w.first_position ELSE a.first_position END AS from_position,
       CASE WHEN s.archive IS NULL THEN w.last_position ELSE a.last_position END AS to_position
FROM archives a
LEFT JOIN archived_strays s ON s.archive = a.name AND s.workflow_id = $1
LEFT JOIN archived_span($1) AS w ON w.first_position <= a.last_position AND w.last_position >= a.first_position
WHERE a.kind = 'events' AND a.removed_at IS NOT NULL AND (s.archive IS NOT NULL OR w.first_position IS NOT NULL)
  AND a.first_position <= (SELECT position FROM log_head)
ORDER BY a.first_position, a.name
