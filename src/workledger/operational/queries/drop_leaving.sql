-- Promise: the tables of what is being archived are gone, if they were there.
-- Safe under concurrency: temporary tables are nobody else's.
DROP TABLE IF EXISTS pg_temp.leaving_workflows, pg_temp.leaving_conversations, pg_temp.leaving_feedback
