-- Promise: gives a position up to which the group has dealt with everything.
-- Safe under concurrency: a script runs alone.
local stream, pieces, group = KEYS[1], KEYS[2], ARGV[1]
local progress
for _, each in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local of = {}
    for n = 1, #each, 2 do of[each[n]] = each[n + 1] end
    if of['name'] == group then progress = tonumber(string.match(of['last-delivered-id'], '^%d+')) end
end
local pending = redis.call('XPENDING', stream, group)
if pending[1] > 0 then progress = math.min(progress, tonumber(string.match(pending[2], '^%d+')) - 1) end
for _, piece in ipairs(redis.call('XRANGE', pieces, '-', '+')) do
    progress = math.min(progress, tonumber(piece[2][2]) - 1)
end
return string.format('%.0f', progress)
