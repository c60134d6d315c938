-- Promise: forgets consumers of the group that have nothing to deal with and have not been heard of for `idle_ms`.
-- Safe under concurrency: a script runs alone; a consumer that is alive after all is made again when it next reads.
local group, idle_ms = ARGV[1], tonumber(ARGV[2])
for _, key in ipairs(KEYS) do
    for _, each in ipairs(redis.call('XINFO', 'CONSUMERS', key, group)) do
        local of = {}
        for n = 1, #each, 2 do of[each[n]] = each[n + 1] end
        if of['pending'] == 0 and (of['idle'] > idle_ms or of['name'] == ARGV[3]) then
            redis.call('XGROUP', 'DELCONSUMER', key, group, of['name'])
        end
    end
end
return 1
