-- Promise: the columns of a table in their order, with PostgreSQL's names of their types; generated ones too where $2.
-- Safe under concurrency: one snapshot of the catalogue.
SELECT attname::text, atttypid::regtype::text
FROM pg_attribute
WHERE attrelid = to_regclass(quote_ident(current_schema()) || '.' || quote_ident($1::text))
  AND attnum > 0 AND NOT attisdropped AND (attgenerated = '' OR $2)
ORDER BY attnum
