-- Promise: one sequencer at a time; whoever comes second waits, and then sees what the first one did.
-- Safe under concurrency: a row lock, released by the end of the transaction, whatever ends it.
SELECT position FROM log_head FOR UPDATE
