-- What every script begins with: the key's state, and how it is written back. ARGV and KEYS belong to the script that follows.
-- Versions and tokens are 64 bits wide, which a Lua number does not hold: they are texts of 20 decimal digits, and texts of
-- equal length made of digits compare alike in every locale.
local NONE = '00000000000000000000'
local WIDE = '(' .. string.rep('%d', 20) .. ')'
local STATE = '^' .. WIDE .. ' ' .. WIDE .. ' (%d+) (%d+) (%d+) ' .. WIDE .. ' (%d+) (%d+) ' .. WIDE .. ' (%d+)$'

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function number(text) return tonumber(text) or 0 end

local function find(text)
  local version, floor, filled, ttl, dead, token, granted, ends, last, kept = string.match(text, STATE)
  return {
    version = version or NONE, floor = floor or NONE,
    filled = number(filled), ttl = number(ttl), dead = number(dead),
    token = token or NONE, granted = number(granted), ends = number(ends),
    last = last or NONE, kept = number(kept),
  }
end

local key = find(redis.call('HGET', KEYS[1], 'm') or '')

local function alive() return key.filled > 0 and now < key.filled + key.dead end

local function value()
  if alive() then return redis.call('HGET', KEYS[1], 'v') end
  return false
end

local function age() return math.max(0, now - key.filled) end

local function drop_value() key.version, key.filled, key.ttl, key.dead = NONE, 0, 0, 0 end

local function drop_lease() key.token, key.granted, key.ends = NONE, 0, 0 end

-- Writes the state, with a new value if there is one, and lets the whole key end when nothing in it is needed any more.
local function save(envelope)
  local ends = 0
  if alive() or envelope then ends = key.filled + key.dead else drop_value() end
  if key.token ~= NONE then ends = math.max(ends, key.ends + key.ends - key.granted) end
  if key.floor ~= NONE then ends = math.max(ends, key.kept) end
  if ends <= now then
    redis.call('DEL', KEYS[1])
    return
  end
  local state = string.format('%s %s %.0f %.0f %.0f %s %.0f %.0f %s %.0f', key.version, key.floor, key.filled, key.ttl,
    key.dead, key.token, key.granted, key.ends, key.last, key.kept)
  if envelope then
    redis.call('HSET', KEYS[1], 'm', state, 'v', envelope)
  else
    redis.call('HSET', KEYS[1], 'm', state)
    if key.filled == 0 then redis.call('HDEL', KEYS[1], 'v') end
  end
  redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', ends))
end

local function store(version, ttl, dead, envelope)
  key.version, key.filled, key.ttl, key.dead = version, now, number(ttl), number(dead)
  if version > key.floor then key.floor = version end
  drop_lease()
  save(envelope)
end

-- Tells the fleet: one byte for what, the version, the cache's own name of the key.
local function tell(channel, what, version, name)
  if channel ~= '' then redis.call('PUBLISH', channel, what .. version .. name) end
end
