-- The way to the data: first the dictionary of this application server, then the cache service.
--
-- Only good and fresh answers go into the dictionary. An absent row, a failure and a stale value are passed on to the
-- page that asked and forgotten: the cache service remembers them better, and for a shorter time.

local cjson = require "cjson.safe"
local http = require "resty.http"

local KEEP_S = 10 * 60                  -- unless $my_cache_seconds says otherwise

local CONNECT_TIMEOUT_MS = 500
local SEND_TIMEOUT_MS = 500
local READ_TIMEOUT_MS = 3000            -- more than the load_timeout of the cache service
local IDLE_TIMEOUT_MS = 60 * 1000
local IDLE_CONNECTIONS_MAX = 32

-- What the page calls the levels of the cache service, as its X-Cache-Level names them.
local LEVELS = { L1 = "L1-memory", L2 = "L2", source = "source", stale = "stale" }

local _M = {
    NOT_FOUND = "not found",
    UNAVAILABLE = "unavailable",
}

-- How far away the levels are; a page is as far away as the farthest of its parts.
local DISTANCE = { ["L1-dictionary"] = 1, ["L1-memory"] = 2, L2 = 3, source = 4, stale = 5 }

local function ask_cache_service(path)
    local client = http.new()
    client:set_timeouts(CONNECT_TIMEOUT_MS, SEND_TIMEOUT_MS, READ_TIMEOUT_MS)
    local answer, err = client:request_uri(ngx.var.cache_service .. path, {
        keepalive_timeout = IDLE_TIMEOUT_MS,
        keepalive_pool = IDLE_CONNECTIONS_MAX,
    })
    if not answer then
        ngx.log(ngx.ERR, "cache service: ", err, " for ", path)
        return nil, _M.UNAVAILABLE
    end
    if answer.status == 404 then
        return nil, _M.NOT_FOUND
    end
    if answer.status ~= 200 then
        ngx.log(ngx.ERR, "cache service: status ", answer.status, " for ", path)
        return nil, _M.UNAVAILABLE
    end
    return answer.body, LEVELS[answer.headers["X-Cache-Level"]] or "source"
end

-- Looks a value up in the dictionary under `key`, else asks the cache service for `path`.
-- Returns the decoded value and the level that answered, or nil and NOT_FOUND or UNAVAILABLE.
function _M.lookup(key, path)
    local dictionary = ngx.shared.my_cache
    local kept = dictionary:get(key)
    if kept then
        return cjson.decode(kept), "L1-dictionary"
    end

    local body, level = ask_cache_service(path)
    if not body then
        return nil, level
    end
    local value, err = cjson.decode(body)
    if type(value) ~= "table" then
        ngx.log(ngx.ERR, "cache service: not the JSON that was asked for: ", err, " for ", path)
        return nil, _M.UNAVAILABLE
    end
    if level ~= "stale" then
        local stored, failure = dictionary:set(key, body, tonumber(ngx.var.my_cache_seconds) or KEEP_S)
        if not stored then
            ngx.log(ngx.WARN, "my_cache does not take ", key, ": ", failure)
        end
    end
    return value, level
end

-- The farther of two levels.
function _M.farther(one, other)
    return DISTANCE[one] >= DISTANCE[other] and one or other
end

return _M
