-- Promise: nobody who stores payloads whose digests begin with the byte $1 is between storing one and the commit of what
-- refers to it, until this transaction ends.
-- Safe under concurrency: an advisory lock that recording shares; waiting for it is bounded by `lock_timeout`, because
-- those who come meanwhile wait behind it.
SELECT set_config('lock_timeout', $2, true), pg_advisory_xact_lock(hashtextextended(current_schema() || '.payloads', $1))
