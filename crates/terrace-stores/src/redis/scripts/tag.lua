-- Puts a key under a tag; KEYS[1] is the tag's sorted set: members 'k' .. key, each with the time at which it may be forgotten.
-- ARGV: name of the key, life in ms, how long in ms an invalidation is remembered, how many expired members to drop.
-- Answers the time of the tag's newest invalidation that is remembered, or 0.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local member, ends = 'k' .. ARGV[1], now + tonumber(ARGV[2])
local voided = redis.call('ZSCORE', KEYS[1], 'v')
local gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', '0', ARGV[4])
if #gone > 0 then redis.call('ZREM', KEYS[1], unpack(gone)) end
local before = redis.call('ZSCORE', KEYS[1], member)
if not before or tonumber(before) < ends then
  redis.call('ZADD', KEYS[1], string.format('%.0f', ends), member)
end
if redis.call('PTTL', KEYS[1]) < ends - now then redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', ends)) end
if voided and tonumber(voided) > now then return tonumber(voided) - tonumber(ARGV[3]) end
return 0
