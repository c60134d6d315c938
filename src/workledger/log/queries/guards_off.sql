-- Promise: the append-only tables that could be changed, because a trigger that refuses it is missing or off.
-- Safe under concurrency: one snapshot of the catalogue.
SELECT c.relname::text
FROM pg_class c
WHERE c.relnamespace = current_schema()::regnamespace
  AND (c.relname IN ('event_positions', 'seals', 'seal_keys', 'erased_payloads', 'archives')
       OR c.oid IN (SELECT inhrelid FROM pg_inherits
                    WHERE inhparent = to_regclass(quote_ident(current_schema()) || '.events')))
  AND (SELECT count(*) FROM pg_trigger t
       WHERE t.tgrelid = c.oid AND t.tgname IN ('append_only_rows', 'append_only_table') AND t.tgenabled = 'A'
         AND t.tgfoid = 'refuse_change'::regproc) < 2
ORDER BY c.relname
