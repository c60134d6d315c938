-- Promise: gives those of these entries that are still this consumer's to deal with; they count as given just now.
-- Safe under concurrency: a script runs alone; what somebody else has claimed is left to them.
local key, group, consumer = KEYS[1], ARGV[1], ARGV[2]
local held = {}
for n = 3, #ARGV do
    local id = ARGV[n]
    local pending = redis.call('XPENDING', key, group, id, id, 1)
    if #pending > 0 and pending[1][2] == consumer then
        redis.call('XCLAIM', key, group, consumer, 0, id, 'JUSTID')
        table.insert(held, id)
    end
end
return held
