-- Promise: until the end of the transaction PostgreSQL may put several processes to one long reading by position, each
-- of which walks the index: nothing is sorted, so memory stays flat.
-- Safe under concurrency: settings of this transaction alone; when no process is free, one does it all.
SELECT set_config(name, value, true)
FROM (VALUES ('max_parallel_workers_per_gather', '2'), ('parallel_setup_cost', '0'), ('parallel_tuple_cost', '0'),
             ('min_parallel_index_scan_size', '0'), ('min_parallel_table_scan_size', '0'), ('enable_sort', 'off'))
    AS s (name, value)
