-- Promise: how many conversations there are.
-- Safe under concurrency: one snapshot.
SELECT count(*) FROM conversations
