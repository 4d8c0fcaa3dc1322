-- GET /values/<key>, PUT /values/<key>: a value of the cluster.
--
-- 400 for a key that is too long, 404 for no value, 405 for other methods, 502 when the cluster does not answer.

local cjson = require "cjson.safe"
local cluster = require "discovery.cluster"
local settings = require "discovery.settings"

local function send(status, value)
    ngx.status = status
    ngx.say(cjson.encode(value))
end

local key, method = ngx.var.key, ngx.req.get_method()
if #key > settings.key_length_max then
    return send(400, { error = "the key is too long" })
elseif method ~= "GET" and method ~= "PUT" then
    ngx.header["Allow"] = "GET, PUT"
    return send(405, { error = "only GET and PUT" })
end

-- Before the cluster is asked, as a client that sends slowly holds nothing up then.
local value
if method == "PUT" then
    ngx.req.read_body()
    value = ngx.req.get_body_data() or ""
end

local client, err = cluster.client()
local reply
if client then
    if method == "PUT" then
        reply, err = client:set(key, value)
    else
        reply, err = client:get(key)
    end
end
if not reply then
    ngx.log(ngx.ERR, "cluster: ", err)
    return send(502, { error = "the cluster does not answer" })
elseif method == "PUT" then
    return send(200, { key = key, stored = true })
elseif reply == ngx.null then
    return send(404, { error = "no value" })
end
send(200, { key = key, value = reply })
