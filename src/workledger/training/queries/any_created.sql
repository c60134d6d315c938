-- Promise: true once a workflow was ever created as pending, to be started later.
-- Safe under concurrency: an event stays; whoever got false asks again.
SELECT EXISTS (SELECT FROM events WHERE event_type = 'workflow.created')
