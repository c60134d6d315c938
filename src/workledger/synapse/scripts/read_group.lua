-- Promise: gives the next pieces, or else the next entries of the stream; what the stream lacks between the last entry
-- delivered and these, or up to the last one it ever had, becomes a piece and is given with them. Where the stream is
-- one of several, an entry says which position it is that comes before it, and what is up to `since` may never have come.
-- Safe under concurrency: a script runs alone, so a gap is found by one consumer of the group, and is on record before
-- anybody sees what comes after it.
local stream, pieces = KEYS[1], KEYS[2]
local group, consumer, count, since = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[5])

local function number(position) return string.format('%.0f', position) end
local function position_of(id) return tonumber(string.match(id, '^%d+')) end
local function field(list, name)
    for n = 1, #list, 2 do if list[n] == name then return list[n + 1] end end
end

local function read(key)
    local reply = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', count, 'STREAMS', key, '>')
    return reply and reply[1] and reply[1][2] or {}
end

local found = read(pieces)
if #found > 0 or ARGV[4] == 'pieces' then return {found, {}, 0} end

local delivered
for _, each in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    if field(each, 'name') == group then delivered = position_of(field(each, 'last-delivered-id')) end
end
local entries = read(stream)
local is_gap = false
local function check(last, after)
    if last > after then
        redis.call('XADD', pieces, '*', 'from', number(after + 1), 'to', number(last))
        is_gap = true
    end
end
for _, entry in ipairs(entries) do
    local position = position_of(entry[1])
    check(tonumber(field(entry[2], 'previous') or position - 1), delivered)
    delivered = position
end
if #entries == 0 then
    local top = math.max(position_of(field(redis.call('XINFO', 'STREAM', stream), 'last-generated-id')), since)
    if top > delivered then
        check(top, delivered)
        redis.call('XGROUP', 'SETID', stream, group, number(top) .. '-0')
        delivered = top
    end
end
return {is_gap and read(pieces) or {}, entries, number(delivered)}
