-- Promise: a seal is written once and never again.
-- Safe under concurrency: its number and its positions are unique; the loser of a race is told.
INSERT INTO seals (
    number, origin, first_position, last_position, root, previous, sealed_at, hash, tree_root, peaks, key_id,
    signature, leaves)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
