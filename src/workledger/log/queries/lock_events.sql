-- Promise: until the end of the transaction, no partition of the log is dropped because it was archived.
-- Safe under concurrency: the weakest lock there is; recording goes on, and whoever archives waits.
LOCK TABLE events IN ACCESS SHARE MODE
