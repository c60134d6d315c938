-- Reading: an index for each question that is asked all day.
--
-- A tour. Lists of workflows by name, type and tag come newest first; `subject` and the running and failed ones have
-- had their indexes since 0001. `workflows_words` finds words in names and errors. What finished in a time (the
-- slowest, percentiles) is a range of `workflows_newest`, `workflows_by_name` or `task_executions_finished`, which
-- grows at one end only. None of them covers a column that changes while a workflow runs (`updated_at`,
-- `current_step`), so that progress stays an update in place.

-- The words of a name and an error: dotted and hyphenated names come apart, so that `ValueError` finds
-- `package.errors.ValueError`. An error may be long; its first 4,000 characters are looked at.
CREATE FUNCTION search_words(name text, error_type text, error text) RETURNS tsvector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN to_tsvector('simple', translate(
        coalesce(name, '') || ' ' || coalesce(left(error_type, 255), '') || ' ' || coalesce(left(error, 4000), ''),
        '._/:@\-', '       '));

CREATE INDEX workflows_by_name ON workflows (name, created_at DESC, workflow_id DESC);
CREATE INDEX workflows_by_type ON workflows (workflow_type, created_at DESC, workflow_id DESC)
    WHERE workflow_type IS NOT NULL;
CREATE INDEX workflows_by_tag ON workflows USING gin (tags) WHERE tags <> '{}';

-- A short list of pending entries keeps writes cheap and no write and no search long.
CREATE INDEX workflows_words ON workflows USING gin (search_words(name, error_type, error))
    WITH (gin_pending_list_limit = 256);
CREATE INDEX task_executions_words ON task_executions USING gin (search_words(task_name, error_type, error))
    WITH (gin_pending_list_limit = 256) WHERE status = 'failed';

CREATE INDEX task_executions_finished ON task_executions (completed_at) WHERE completed_at IS NOT NULL;
