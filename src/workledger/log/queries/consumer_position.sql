-- Promise: how far a named reader has come; no row for one that never ran.
-- Safe under concurrency: one row.
SELECT position FROM consumers WHERE name = $1
