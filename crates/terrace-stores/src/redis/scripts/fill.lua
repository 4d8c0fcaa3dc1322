-- ARGV: token, version, ttl, dead, newest invalidation of its tags by the clock (or 0), oldest lease in ms, channel, name, value.
-- Answers {1} stored, {0} voided, {2, version} older.
local token, version = ARGV[1], ARGV[2]
local mine = key.token == token
local function give_back(answer)
  if mine then
    drop_lease()
    save()
    tell(ARGV[7], 'R', NONE, ARGV[8])
  end
  return answer
end
if version ~= NONE and version < key.floor then return give_back({2, key.floor}) end
if not mine then
  -- The same fill again, because its first answer was lost.
  if key.last == token and key.version == version and alive() then return {1} end
  return {0}
end
if key.granted <= number(ARGV[5]) or now - key.granted > number(ARGV[6]) then return give_back({0}) end
key.last = token
store(version, ARGV[3], ARGV[4], ARGV[9])
tell(ARGV[7], 'F', version, ARGV[8])
return {1}
