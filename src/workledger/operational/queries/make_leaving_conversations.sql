-- Promise: a table of this session's own for the conversations that leave, each with one of their workflows.
-- Safe under concurrency: temporary tables are nobody else's.
CREATE TEMPORARY TABLE leaving_conversations (conversation_id text PRIMARY KEY, workflow_id text)
