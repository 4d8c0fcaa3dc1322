-- ARGV: token to hand out, life of the lease in ms, time of filling of a value that the asker cannot read (or 0).
-- Answers {1, age, filled, value} fresh, {2, age, filled, value or nil} leased, {3, age, filled, value or nil, remaining} held.
local kept = value()
if key.filled == number(ARGV[3]) then kept = false end
if kept and now < key.filled + key.ttl then return {1, age(), key.filled, kept} end
if key.token == ARGV[1] and now < key.ends then return {2, age(), key.filled, kept} end
if key.token ~= NONE and now < key.ends then return {3, age(), key.filled, kept, key.ends - now} end
key.token, key.granted, key.ends = ARGV[1], now, now + number(ARGV[2])
save()
return {2, age(), key.filled, kept}
