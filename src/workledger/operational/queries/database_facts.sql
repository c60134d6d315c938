-- Promise: what the database says of itself. Row counts are the statistics' estimates, sizes are exact.
-- Safe under concurrency: one snapshot.
SELECT current_setting('server_version') AS version, current_database() AS database, current_schema() AS project,
       pg_is_in_recovery() AS is_replica, pg_database_size(current_database()) AS database_bytes,
       (SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
        FROM pg_class c
        WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND c.relkind IN ('r', 'm')) AS project_bytes,
       (SELECT max(version) FROM migrations) AS schema_version, now() AS now
