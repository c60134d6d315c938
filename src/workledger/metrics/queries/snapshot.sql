-- Promise: all statements of this transaction see one moment; nothing is locked, nothing is written.
-- Safe under concurrency: a snapshot.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY
