-- Promise: the digests from $1 to $2 (as hex) that events and state rows refer to, each at least once. A reference may
-- stand anywhere in an event; in a state row it stands in place of a value.
-- Safe under concurrency: one snapshot; what is recorded afterwards is found by `newly_used_payloads`.
SELECT DISTINCT digest
FROM (
    SELECT jsonb_path_query(payload, '$.** ? (@."$workledger" == "payload").digest') #>> '{}' AS digest
    FROM events WHERE payload @? '$.** ? (@."$workledger" == "payload")'
    UNION ALL
    SELECT input_data ->> 'digest' FROM workflows WHERE input_data ->> '$workledger' = 'payload'
    UNION ALL
    SELECT output_data ->> 'digest' FROM workflows WHERE output_data ->> '$workledger' = 'payload'
    UNION ALL
    SELECT input_data ->> 'digest' FROM task_executions WHERE input_data ->> '$workledger' = 'payload'
    UNION ALL
    SELECT output_data ->> 'digest' FROM task_executions WHERE output_data ->> '$workledger' = 'payload'
    UNION ALL
    SELECT content ->> 'digest' FROM messages WHERE content ->> '$workledger' = 'payload'
    UNION ALL
    SELECT tool_calls ->> 'digest' FROM messages WHERE tool_calls ->> '$workledger' = 'payload'
) AS reference
WHERE digest COLLATE "C" BETWEEN $1 AND $2
