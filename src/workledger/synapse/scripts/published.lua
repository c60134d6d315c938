-- Promise: the log is published up to `position`; of each stream that got something, the last position it got is kept,
-- and so is `since`, after which no event was left out. What is kept never goes back, but for what is forgotten first.
-- Safe under concurrency: a script runs alone.
local published, tops = KEYS[1], KEYS[2]
local position, partitions, since, lost = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

local function raise(field, value)
    local kept = redis.call('HGET', tops, field)
    if not kept or tonumber(kept) < tonumber(value) then redis.call('HSET', tops, field, value) end
end

for n = 5, 4 + lost do redis.call('HDEL', tops, ARGV[n]) end
raise('since', since)
for n = 5 + lost, #ARGV, 2 do raise(ARGV[n], ARGV[n + 1]) end
local there = redis.call('XREVRANGE', published, '+', '-', 'COUNT', 1)
if #there == 0 or tonumber(string.match(there[1][1], '^%d+')) < tonumber(position) then
    redis.call('XADD', published, 'MAXLEN', 1, position .. '-0', 'partitions', partitions)
end
return 1
