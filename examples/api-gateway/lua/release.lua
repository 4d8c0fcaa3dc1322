-- Sends a request to the canary if its address is in the list, else to the stable version.

local settings = require "gateway.settings"
local store = require "gateway.store"

local listed, err = store.cached(settings.canary_s, "sismember", settings.canary, ngx.var.remote_addr)
if listed == nil then
    -- Without the list everybody gets what is known to work.
    ngx.log(ngx.ERR, "canary list: ", err)
end
return ngx.exec(listed == 1 and "@canary" or "@stable")
