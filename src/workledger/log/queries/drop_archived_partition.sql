-- Promise: a partition ($1) whose events are all in files of the archive is gone, and readers find the files instead.
-- Safe under concurrency: see the function. At most $2 tries to lock the log, $3 milliseconds each.
SELECT drop_archived_partition($1, $2, $3)
