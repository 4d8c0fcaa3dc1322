-- Remembers that a tag was invalidated, for the fills that are on their way. ARGV: for how long in ms.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local ends = now + tonumber(ARGV[1])
redis.call('ZADD', KEYS[1], string.format('%.0f', ends), 'v')
if redis.call('PTTL', KEYS[1]) < ends - now then redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', ends)) end
return now
