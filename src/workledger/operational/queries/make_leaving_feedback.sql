-- Promise: a table of this session's own for the feedback that leaves with workflows.
-- Safe under concurrency: temporary tables are nobody else's.
CREATE TEMPORARY TABLE leaving_feedback (feedback_id text PRIMARY KEY, workflow_id text)
