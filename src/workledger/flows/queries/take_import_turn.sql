-- Promise: one importer at a time looks up what is there and writes what is missing.
-- Safe under concurrency: an advisory lock of this schema, released by the end of the transaction, whatever ends it.
SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '.import', 0))
