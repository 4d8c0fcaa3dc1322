-- ARGV: version, ttl, dead, channel, name, value. Answers {1} stored, {2, version} older.
local version = ARGV[1]
if version ~= NONE and version < key.floor then return {2, key.floor} end
key.last = NONE
store(version, ARGV[2], ARGV[3], ARGV[6])
tell(ARGV[4], 'F', version, ARGV[5])
return {1}
