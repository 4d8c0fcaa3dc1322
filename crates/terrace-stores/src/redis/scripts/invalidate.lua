-- ARGV: version, how long in ms the floor is kept, channel (empty: tell nobody), name. Answers how many values were dropped.
local version, dropped = ARGV[1], 0
if version ~= NONE then
  if version > key.floor then key.floor = version end
  key.kept = math.max(key.kept, now + number(ARGV[2]))
end
if version == NONE or key.version < version then
  if alive() then dropped = 1 end
  drop_value()
  key.last = NONE
end
drop_lease()
save()
tell(ARGV[3], 'K', version, ARGV[4])
return dropped
