-- Promise: gives a position up to which the group has dealt with everything in this stream. When `top` is the last that
-- the stream has of the events up to `upto`, whoever was given it was given everything up to there.
-- Safe under concurrency: a script runs alone.
local stream, pieces, group = KEYS[1], KEYS[2], ARGV[1]
local upto, top = tonumber(ARGV[2]), tonumber(ARGV[3])
local progress
for _, each in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local of = {}
    for n = 1, #each, 2 do of[each[n]] = each[n + 1] end
    if of['name'] == group then progress = tonumber(string.match(of['last-delivered-id'], '^%d+')) end
end
if progress and progress >= top then progress = math.max(progress, upto) end
local pending = redis.call('XPENDING', stream, group)
if pending[1] > 0 then progress = math.min(progress, tonumber(string.match(pending[2], '^%d+')) - 1) end
for _, piece in ipairs(redis.call('XRANGE', pieces, '-', '+')) do
    progress = math.min(progress, tonumber(piece[2][2]) - 1)
end
return string.format('%.0f', progress)
