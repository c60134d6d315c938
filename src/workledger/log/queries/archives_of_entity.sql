-- Promise: the files that can hold events of an entity ($1, $2), and which are no longer in the database, with the
-- positions between which they are; none for a workflow or execution that is in the state, because what is live is
-- never archived. For other entities, nothing but the files themselves can tell.
-- Safe under concurrency: one snapshot, as in archives_between.
SELECT a.name, a.kind, a.source, a.url, a.sha256, a.size_bytes, a.rows, a.first_position, a.last_position, a.first_time,
       a.last_time, a.erased, a.format_version, a.event_id::text, a.archived_at, a.removed_at,
       a.first_position AS from_position, a.last_position AS to_position
FROM archives a
WHERE a.kind = 'events' AND a.removed_at IS NOT NULL AND a.last_position > $3
  AND a.first_position <= (SELECT position FROM log_head)
  AND NOT CASE $1::text
      WHEN 'workflow' THEN EXISTS (SELECT FROM workflows w WHERE w.workflow_id = $2)
      WHEN 'task' THEN EXISTS (SELECT FROM task_executions x WHERE x.execution_id = $2)
      ELSE false END
ORDER BY a.first_position, a.name
