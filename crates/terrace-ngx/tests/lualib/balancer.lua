-- Module ngx.balancer, as a balancer_by_lua_file of an upstream with `server 0.0.0.1;` whose location has
-- `proxy_next_upstream error timeout`. `$live` is the port of a server that answers; nothing listens on port 1.
--
-- Expected output: the answer of that server, and in the error log, at `notice`:
--   first nil nil nil
--   name nilno host allowed
--   again failed 502

local balancer = require "ngx.balancer"

local kind, status, err = balancer.get_last_failure()
if not kind then
    ngx.log(ngx.NOTICE, "first ", kind, " ", status, " ", err)
    ngx.log(ngx.NOTICE, "name ", balancer.set_current_peer("example.com", 80))
    assert(balancer.set_timeouts(1, 1, 1))
    assert(balancer.set_more_tries(1))
    assert(balancer.set_current_peer("127.0.0.1", 1))
else
    ngx.log(ngx.NOTICE, "again ", kind, " ", status)
    assert(balancer.set_current_peer("127.0.0.1:" .. ngx.var.live))
end
