-- Promise: how many events are being archived, how many of them have positions, and the first and last position.
-- Safe under concurrency: temporary tables are nobody else's.
SELECT count(*), count(position), min(position), max(position) FROM pg_temp.archiving
