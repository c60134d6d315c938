-- Promise: one copy of a consumer at a time; whoever comes second gets no row and does something else.
-- Safe under concurrency: a row lock, released by the end of the transaction, whatever ends it.
SELECT position FROM consumers WHERE name = $1 FOR UPDATE SKIP LOCKED
