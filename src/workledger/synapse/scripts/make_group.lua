-- Promise: the group is there; when it was made just now, it has everything above `progress` still to come: up to the
-- head of the log as a piece to be read from the log, and what is above from the stream.
-- Safe under concurrency: a script runs alone, and a group that is there is left as it is.
local stream, pieces = KEYS[1], KEYS[2]
local group, progress, head = ARGV[1], ARGV[2], ARGV[3]

local function make(key, after)
    local answer = redis.pcall('XGROUP', 'CREATE', key, group, after, 'MKSTREAM')
    if type(answer) == 'table' and answer.err then
        if string.find(answer.err, 'BUSYGROUP', 1, true) then return false end
        error(answer.err)
    end
    return true
end

make(pieces, '0')
if not make(stream, head .. '-0') then return 0 end
if tonumber(progress) < tonumber(head) then
    redis.call('XADD', pieces, '*', 'from', string.format('%.0f', progress + 1), 'to', head)
end
return 1
