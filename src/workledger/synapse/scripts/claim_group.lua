-- Promise: gives what other consumers of the group were given and have not dealt with for `idle_ms`, each with the
-- number of times it was given. An entry that was cut from the stream meanwhile becomes a piece.
-- Safe under concurrency: a script runs alone; what is claimed counts as given just now.
local stream, pieces = KEYS[1], KEYS[2]
local group, consumer, idle_ms, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local claimed = {{}, {}}
for which, key in ipairs({pieces, stream}) do
    for _, each in ipairs(redis.call('XPENDING', key, group, 'IDLE', idle_ms, '-', '+', count)) do
        local id, times = each[1], each[4]
        local there = redis.call('XRANGE', key, id, id)
        if #there > 0 then
            redis.call('XCLAIM', key, group, consumer, 0, id)
            table.insert(claimed[which], {id, there[1][2], times + 1})
        else
            redis.call('XACK', key, group, id)
            if key == stream then
                local position = string.match(id, '^%d+')
                redis.call('XADD', pieces, '*', 'from', position, 'to', position, 'attempts', times)
            end
        end
    end
end
return claimed
