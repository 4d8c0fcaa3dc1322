-- Module ngx.upstream: the `upstream` blocks and their peers. What it says of peers is this worker's.

local base = require "terrace.base"

local native, take, text = base.native, base.take, base.text
local error, gmatch, pcall, tonumber, type = error, string.gmatch, pcall, tonumber, type

local NO_REQUEST, NOT_FOUND, NO_PEER = base.NO_REQUEST, base.NOT_FOUND, -2

local _M = { _VERSION = "0.07" }

-- The names of all `upstream` blocks.
function _M.get_upstreams()
    local names = {}
    if native.upstream_names(text) == 0 then
        for name in gmatch(take(), "[^\n]+") do
            names[#names + 1] = name
        end
    end
    return names
end

-- All peers of a block as the native side tells them; or nil and an error.
local function rows(name)
    if type(name) ~= "string" then
        error("bad argument #1 (string expected, got " .. type(name) .. ")", 3)
    end
    local code = native.upstream_peers(name, #name, text)
    if code == NOT_FOUND then
        return nil, "upstream not found"
    elseif code == NO_REQUEST then
        return nil, "no request found"
    end
    local found = {}
    local pattern = "(%d)\t(%d)\t(%d+)\t(-?%d+)\t(-?%d+)\t(%d+)\t(%d+)\t(%d+)\t(%d+)\t([^\t\n]*)\t([^\n]*)\n"
    for backup, down, weight, current, effective, fails, max_fails, window, conns, address, server in
        gmatch(take(), pattern) do
        found[#found + 1] = {
            backup = backup == "1", down = down == "1", weight = tonumber(weight), current_weight = tonumber(current),
            effective_weight = tonumber(effective), fails = tonumber(fails), max_fails = tonumber(max_fails),
            fail_timeout = tonumber(window), conns = tonumber(conns), name = address, server = server,
        }
    end
    return found
end

-- What the configuration says: { addr, name, weight, fail_timeout, max_fails, backup, down } for each `server`.
function _M.get_servers(upstream)
    local found, err = rows(upstream)
    if not found then
        return nil, err
    end
    local servers, of = {}, {}
    for i = 1, #found do
        local row = found[i]
        local server = of[row.server]
        if server then
            -- Another address of the same name.
            server.addr = type(server.addr) == "table" and server.addr or { server.addr }
            server.addr[#server.addr + 1] = row.name
        else
            server = {
                addr = row.name, name = row.server, weight = row.weight, fail_timeout = row.fail_timeout,
                max_fails = row.max_fails, backup = row.backup or nil, down = row.down or nil,
            }
            of[row.server] = server
            servers[#servers + 1] = server
        end
    end
    return servers
end

local function peers(upstream, is_backup)
    local found, err = rows(upstream)
    if not found then
        return nil, err
    end
    local list = {}
    for i = 1, #found do
        local row = found[i]
        if row.backup == is_backup then
            list[#list + 1] = {
                id = #list, name = row.name, weight = row.weight, current_weight = row.current_weight,
                effective_weight = row.effective_weight, fails = row.fails, max_fails = row.max_fails,
                fail_timeout = row.fail_timeout, conns = row.conns, down = row.down or nil,
            }
        end
    end
    return list
end

-- { id, name, weight, current_weight, effective_weight, fails, max_fails, fail_timeout, conns, down } for each peer.
function _M.get_primary_peers(upstream)
    return peers(upstream, false)
end

function _M.get_backup_peers(upstream)
    return peers(upstream, true)
end

-- Takes a peer of this worker out of balancing, or puts it back. True, or nil and an error.
function _M.set_peer_down(upstream, is_backup, id, is_down)
    local code = native.upstream_set_down(upstream, #upstream, is_backup and 1 or 0, id, is_down and 1 or 0)
    if code == 0 then
        return true
    elseif code == NO_PEER then
        return nil, "bad peer id"
    elseif code == NO_REQUEST then
        return nil, "no request found"
    end
    return nil, "upstream not found"
end

-- The upstream that the request is passed to; nil where it is not.
function _M.current_upstream_name()
    local ok, name = pcall(function()
        return ngx.var.proxy_host
    end)
    return ok and name ~= "" and name or nil
end

return _M
