-- The nodes of the cluster. One worker asks Consul at intervals, all read what it wrote into the dictionary. What is no
-- address is passed over; while Consul does not answer, or names no node, the nodes that were known last stay.

local consul = require "discovery.consul"
local settings = require "discovery.settings"

local dictionary = ngx.shared.discovery

local _M = {}

-- What was logged last: a failure that lasts is told once.
local told

local function tell(level, text)
    if text ~= told then
        told = text
        ngx.log(level, text)
    end
end

local function parse(text)
    local host, port = text:match("^%s*([%w.-]+):(%d+)%s*$")
    port = tonumber(port)
    if port and port >= 1 and port <= 65535 and #host <= 255 then
        return host, port
    end
end

local function refresh()
    local values, err = consul.values()
    if not values then
        return tell(ngx.ERR, "consul: " .. err)
    end
    local names, wrong = {}, 0
    for _, value in ipairs(values) do
        local host, port = parse(value)
        if host and #names < settings.nodes_max then
            names[#names + 1] = host .. ":" .. port
        else
            wrong = wrong + 1
        end
    end
    if #names == 0 then
        return tell(ngx.ERR, "consul: no address among " .. #values .. " values")
    end
    local text = table.concat(names, " ")
    local stored, failure = dictionary:safe_set("nodes", text)
    if not stored then
        return tell(ngx.ERR, "discovery: " .. failure)
    end
    dictionary:set("asked", ngx.time())
    tell(ngx.NOTICE, "nodes: " .. text .. (wrong > 0 and ", and " .. wrong .. " values that are not taken" or ""))
end

local is_asking = false

local function ask(premature)
    if premature or is_asking then
        return
    end
    is_asking = true
    local ok, err = pcall(refresh)
    is_asking = false
    if not ok then
        tell(ngx.ERR, "discovery: " .. tostring(err))
    end
end

-- Begins to ask. For init_worker_by_lua.
function _M.start()
    if ngx.worker.id() ~= 0 then
        return
    end
    assert(ngx.timer.at(0, ask))
    assert(ngx.timer.every(settings.interval_s, ask))
end

local known_text, known_list

-- The nodes as { { ip, port }, … } and as one text; or nil while none is known.
function _M.current()
    local text = dictionary:get("nodes")
    if text and text ~= known_text then
        local list = {}
        for name in text:gmatch("%S+") do
            local host, port = parse(name)
            list[#list + 1] = { ip = host, port = port }
        end
        known_text, known_list = text, list
    end
    return text and known_list, text
end

-- Seconds since Consul answered; nil if it never did.
function _M.age_s()
    local asked = dictionary:get("asked")
    return asked and ngx.time() - asked
end

return _M
