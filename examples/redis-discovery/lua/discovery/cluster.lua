-- A client of the cluster that Consul names.

local nodes = require "discovery.nodes"
local rediscluster = require "rediscluster"
local settings = require "discovery.settings"

local at = settings.redis

local _M = {}

-- Returns a client, or nil and an error.
function _M.client()
    local list, text = nodes.current()
    if not list then
        return nil, "no node is known yet"
    end
    return rediscluster:new({
        -- The slots are kept by this name: other nodes may be another cluster.
        name = text,
        serv_list = list,
        connect_timeout = at.connect_timeout_ms,
        send_timeout = at.send_timeout_ms,
        read_timeout = at.read_timeout_ms,
        keepalive_timeout = at.idle_timeout_ms,
        keepalive_cons = at.connections_max,
        max_redirection = at.redirections_max,
        max_connection_attempts = at.attempts_max,
    })
end

return _M
