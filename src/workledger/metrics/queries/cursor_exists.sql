-- Promise: says whether a consumer has a cursor.
-- Safe under concurrency: a cursor, once made, stays.
SELECT position FROM consumers WHERE name = $1
