-- Promise: what the seals commit to for the erased payloads of events with ids from $1 up to, but without, $2.
-- Safe under concurrency: one snapshot; a commitment is kept for ever.
SELECT event_id::text, commitment FROM erased_payloads WHERE event_id >= $1::uuid AND event_id < $2::uuid
