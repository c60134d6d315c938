-- Promise: the last position of an event that is no longer in the database, or whose workflow is no longer in the
-- state; 0 when there is none.
-- Safe under concurrency: one snapshot, as in archives_between.
SELECT greatest(
    (SELECT coalesce(max(last_position), 0) FROM archives WHERE kind = 'events' AND removed_at IS NOT NULL),
    (SELECT coalesce(max(last_position), 0) FROM archived_workflows))
