-- Which node of a Redis cluster has which slots: learnt by CLUSTER SLOTS, kept per worker under the cluster's name.
--
-- A map is { owners = uint16_t[16384], groups = { { master = node, nodes = { node, … } }, … }, nodes = { … } }; owner 0 is
-- none. A node is { ip, port, is_replica }. A map is replaced as a whole, never changed, as calls that wait hold it.

local ffi = require "ffi"
local redis = require "resty.redis"
local resty_lock = require "resty.lock"

local concat = table.concat
local ipairs, tostring, type = ipairs, tostring, type

local DICT_DEFAULT = "redis_cluster_slot_locks"
local REFRESH_KEY_DEFAULT = "refresh_lock"
local ATTEMPTS_DEFAULT = 3
local KEEPALIVE_TIMEOUT_MS_DEFAULT = 55000
local KEEPALIVE_CONNECTIONS_DEFAULT = 1000
local TIMEOUT_MS_DEFAULT = 1000

local _M = {}

-- Cluster's name -> map.
local maps = {}

-- A node's address for a client that has options for each of the two.
local function open(config, ip, port)
    local client, err = redis:new()
    if not client then
        return nil, err
    end
    client:set_timeouts(config.connect_timeout or TIMEOUT_MS_DEFAULT, config.send_timeout or TIMEOUT_MS_DEFAULT,
        config.read_timeout or TIMEOUT_MS_DEFAULT)
    local ok
    ok, err = client:connect(ip, port, config.connect_opts)
    if not ok then
        return nil, err
    end
    local auth = config.auth
    if type(auth) == "string" and client:get_reused_times() == 0 then
        if config.username then
            ok, err = client:auth(config.username, auth)
        else
            ok, err = client:auth(auth)
        end
        if not ok then
            client:close()
            return nil, err, true
        end
    end
    return client
end

-- A client that is connected and known to the server; or nil, an error and whether the server refused the password.
_M.open = open

-- Gives a connection back to its pool.
function _M.release(config, client)
    return client:set_keepalive(config.keepalive_timeout or KEEPALIVE_TIMEOUT_MS_DEFAULT,
        config.keepalive_cons or KEEPALIVE_CONNECTIONS_DEFAULT)
end

-- A map out of the reply to CLUSTER SLOTS; rows are first slot, last slot, master, replicas.
local function read_map(rows, asked_ip)
    local map = { owners = ffi.new("uint16_t[16384]"), groups = {}, nodes = {} }
    local seen = {}
    for index, row in ipairs(rows) do
        local group = { nodes = {} }
        for at = 3, #row do
            local ip, port = row[at][1], row[at][2]
            -- A node that does not know its own name means the address at which it was asked.
            if type(ip) ~= "string" or ip == "" or ip == "?" then
                ip = asked_ip
            end
            local node = { ip = ip, port = port, is_replica = at > 3 }
            group.nodes[at - 2] = node
            local name = ip .. ":" .. port
            if not seen[name] then
                seen[name] = true
                map.nodes[#map.nodes + 1] = node
            end
        end
        group.master = group.nodes[1]
        map.groups[index] = group
        for slot = row[1], row[2] do
            map.owners[slot] = index
        end
    end
    return map
end

local function ask(config, ip, port)
    local client, err
    local attempts, started = config.max_connection_attempts or ATTEMPTS_DEFAULT, ngx.now()
    for attempt = 1, attempts do
        local refused
        client, err, refused = open(config, ip, port)
        if client or refused then
            break
        end
        ngx.update_time()
        local spent_max = config.max_connection_timeout
        if spent_max and attempt < attempts and (ngx.now() - started) * 1000 > spent_max then
            return nil, "max_connection_timeout of " .. spent_max .. "ms reached."
        end
    end
    if not client then
        return nil, err
    end
    local rows
    rows, err = client:cluster("slots")
    if type(rows) ~= "table" or not rows[1] then
        client:close()
        return nil, err or "no slot is assigned"
    end
    _M.release(config, client)
    return read_map(rows, ip)
end

-- Asks node after node, those known last ahead of those configured.
local function fetch(config)
    local errors, asked = {}, {}
    local function try(nodes)
        for _, node in ipairs(nodes) do
            local name = tostring(node.ip) .. ":" .. tostring(node.port)
            if not asked[name] then
                asked[name] = true
                local map, err = ask(config, node.ip, node.port)
                if map then
                    return map
                end
                errors[#errors + 1] = "unable to connect " .. name .. ": " .. tostring(err)
            end
        end
    end
    local known = maps[config.name]
    local map = known and try(known.nodes) or try(config.serv_list)
    if not map then
        return nil, concat(errors, ", ")
    end
    maps[config.name] = map
    return map
end

-- The map that is known, or nil.
function _M.known(config)
    return maps[config.name]
end

-- The map, fetched if none is known; one request of the server at a time fetches where there is a dictionary for it.
function _M.first(config)
    if maps[config.name] then
        return maps[config.name]
    end
    local lock = resty_lock:new(config.dict_name or DICT_DEFAULT)
    local elapsed, err = true, nil
    if lock then
        elapsed, err = lock:lock("redis_cluster_slot_" .. config.name)
    end
    if not elapsed then
        return nil, err
    end
    local map = maps[config.name]
    if not map then
        map, err = fetch(config)
    end
    if lock then
        lock:unlock()
    end
    return map, err
end

local refreshing = {}

-- Fetches the map anew, unless that is under way already: then nil and an error.
function _M.refresh(config)
    local name = config.name
    local lock = resty_lock:new(config.dict_name or DICT_DEFAULT, { timeout = 0 })
    if lock then
        local worker = ngx.worker.id() or 0
        local elapsed, err = lock:lock((config.refresh_lock_key or REFRESH_KEY_DEFAULT) .. worker)
        if not elapsed then
            return nil, "race refresh lock fail, " .. err
        end
    elseif refreshing[name] then
        return nil, "race refresh lock fail, locked"
    end
    refreshing[name] = true
    local map, err = fetch(config)
    refreshing[name] = nil
    if lock then
        lock:unlock()
    end
    return map, err
end

return _M
