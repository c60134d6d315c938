-- Promise: the commands that drop what a replay does not need of the state tables: indexes that are no keys, and
-- references, which the statements check themselves. And those that leave room in their pages: within one transaction
-- no version of a row can be pruned, and one that finds no room in its page costs an entry in each index.
-- Safe under concurrency: a look at the catalogue of the schema at hand.
SELECT format('DROP INDEX %s', i.indexrelid::regclass)
FROM pg_index i
JOIN pg_class c ON c.oid = i.indrelid
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND NOT i.indisunique
  AND c.relname IN ('workflows', 'task_executions', 'conversations', 'messages', 'feedback')
UNION ALL
SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname)
FROM pg_constraint
WHERE connamespace = current_schema()::regnamespace AND contype = 'f'
  AND conrelid::regclass::text IN ('task_executions', 'messages')
UNION ALL
SELECT format('ALTER TABLE %s SET (fillfactor = %s)', oid::regclass, CASE relname WHEN 'workflows' THEN 20 ELSE 50 END)
FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'
  AND relname IN ('workflows', 'task_executions', 'conversations')
