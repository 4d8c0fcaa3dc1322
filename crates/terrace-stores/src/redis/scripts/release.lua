-- ARGV: token, channel, name. Answers 1 if the lease was that token's, else 0.
if key.token ~= ARGV[1] then return 0 end
drop_lease()
save()
tell(ARGV[2], 'R', NONE, ARGV[3])
return 1
