-- Promise: one copy of a reader at a time; whoever comes second waits, and then sees how far the first one came.
-- Safe under concurrency: a row lock, released by the end of the transaction, whatever ends it.
SELECT position FROM consumers WHERE name = $1 FOR UPDATE
