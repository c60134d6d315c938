-- Words: what stands between angle brackets is found as well.
--
-- A tour. PostgreSQL's parser takes `<script>` and `<style>` for the beginning of something to leave out, to its end tag;
-- with the slashes gone there is none, and every word of an error page after it was lost. So the brackets go too.
-- The indexes are made again by the same words; writes wait for that.

CREATE OR REPLACE FUNCTION search_words(name text, error_type text, error text) RETURNS tsvector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN to_tsvector('simple', translate(
        coalesce(name, '') || ' ' || coalesce(left(error_type, 255), '') || ' ' || coalesce(left(error, 4000), ''),
        '._/:@\-<>', '         '));

REINDEX INDEX workflows_words;
REINDEX INDEX task_executions_words;
