-- Promise: what the files of state rows of a source ($1) hold has left the database; gives how many files.
-- Safe under concurrency: a mark is set once.
SELECT mark_removed($1)
