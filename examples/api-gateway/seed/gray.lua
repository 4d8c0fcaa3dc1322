local redis=require "resty.redis";
local red=redis:new();
red:set_timeout(1000);

local ok,err=red:connect("127.0.0.1",6379);

if not ok then
    ngx.say("failed to connect redis",err);
    return;
end

local headers=ngx.req.get_headers()
local local_ip=headers["X-REAL-IP"] or headers["X_FORWARDED_FOR"] or ngx.var.remote_addr

local ip_lists=red:get("gray");
if ip_lists ~= nil and  string.find(ip_lists,local_ip) == nil then
    ngx.exec("@prod");
else
    ngx.exec("@pre");
end
    local ok,err=red:close();
