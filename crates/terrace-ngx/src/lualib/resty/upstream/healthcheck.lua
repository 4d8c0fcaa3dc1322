-- Asks the peers of `upstream` blocks from time to time how they are, and takes those out that fail.
--
-- One worker at a time asks, by a lock in the shared dictionary; the others learn of changes by a version there.

local upstream = require "ngx.upstream"

local concat, find, floor, ipairs, match, min, pcall, tonumber, tostring =
    table.concat, string.find, math.floor, ipairs, string.match, math.min, pcall, tonumber, tostring
local log, shared, spawn, tcp, timer_at, wait =
    ngx.log, ngx.shared, ngx.thread.spawn, ngx.socket.tcp, ngx.timer.at, ngx.thread.wait
local ERR, INFO, WARN = ngx.ERR, ngx.INFO, ngx.WARN

local INTERVAL_MS_DEFAULT, INTERVAL_MS_MIN, TIMEOUT_MS_DEFAULT = 1000, 2, 1000
local FALL_DEFAULT, RISE_DEFAULT, CONCURRENCY_DEFAULT = 5, 2, 1

local _M = { _VERSION = "0.08" }

-- Upstreams that this worker checks.
local checked = {}

-- A key of a peer: kind, upstream, "b" or "p", and id.
local function key_for(kind, name, is_backup, id)
    return kind .. name .. ":" .. (is_backup and "b" or "p") .. id
end

local function peers_of(name)
    local all = {}
    for _, is_backup in ipairs { false, true } do
        local get = is_backup and upstream.get_backup_peers or upstream.get_primary_peers
        local list, err = get(name)
        if not list then
            return nil, err
        end
        for _, peer in ipairs(list) do
            peer.is_backup = is_backup
            peer.host, peer.port = match(peer.name, "^(.*):(%d+)$")
            if not peer.host or find(peer.name, "^unix:") then
                peer.host, peer.port = peer.name, nil
            end
            peer.host = match(peer.host, "^%[(.*)%]$") or peer.host
            all[#all + 1] = peer
        end
    end
    return all
end

-- Sets a peer's state here, and in the dictionary for the others.
local function set_down(ctx, peer, is_down)
    peer.down = is_down
    local ok, err = upstream.set_peer_down(ctx.upstream, peer.is_backup, peer.id, is_down)
    if not ok then
        log(ERR, "failed to set peer down: ", err)
    end
    ok, err = ctx.dict:set(key_for("d:", ctx.upstream, peer.is_backup, peer.id), is_down)
    if not ok then
        log(ERR, "failed to set peer down state: ", err)
    end
    ctx.has_changed = true
end

-- Counts one kind of outcome in a row, and forgets the other kind.
local function count(ctx, peer, kind, other)
    local key = key_for(kind, ctx.upstream, peer.is_backup, peer.id)
    local n, err = ctx.dict:incr(key, 1, 0)
    if not n then
        log(ERR, "failed to count in the dictionary: ", err)
        n = 1
    end
    ctx.dict:delete(key_for(other, ctx.upstream, peer.is_backup, peer.id))
    return n
end

local function note_failure(ctx, peer)
    local fails = count(ctx, peer, "nok:", "ok:")
    if not peer.down and fails >= ctx.fall then
        log(WARN, "peer ", peer.name, " is turned down after ", fails, " failure(s)")
        set_down(ctx, peer, true)
    end
end

local function note_success(ctx, peer)
    local successes = count(ctx, peer, "ok:", "nok:")
    if peer.down and successes >= ctx.rise then
        log(WARN, "peer ", peer.name, " is turned up after ", successes, " success(es)")
        set_down(ctx, peer, false)
    end
end

-- Whether a peer answers as it should; else false and why.
local function probe(ctx, peer)
    local sock, err = tcp()
    if not sock then
        return false, "failed to create stream socket: " .. err
    end
    sock:settimeout(ctx.timeout)
    local ok
    if peer.port then
        ok, err = sock:connect(peer.host, ctx.port or tonumber(peer.port))
    else
        ok, err = sock:connect(peer.host)
    end
    if not ok then
        return false, "failed to connect to " .. peer.name .. ": " .. err
    end
    if ctx.type == "https" then
        ok, err = sock:sslhandshake(nil, ctx.host, ctx.ssl_verify)
        if not ok then
            return false, "failed to ssl handshake to " .. peer.name .. ": " .. err
        end
    end
    ok, err = sock:send(ctx.http_req)
    if not ok then
        return false, "failed to send request to " .. peer.name .. ": " .. err
    end
    local line
    line, err = sock:receive()
    sock:close()
    if not line then
        return false, "failed to receive status line from " .. peer.name .. ": " .. err
    end
    if ctx.statuses then
        local status = tonumber(match(line, "^HTTP/%d+%.%d+%s+(%d+)"))
        if not status then
            return false, "bad status line from " .. peer.name .. ": " .. line
        elseif not ctx.statuses[status] then
            return false, "bad status code from " .. peer.name .. ": " .. status
        end
    end
    return true
end

local function check_share(ctx, peers, from, to)
    for i = from, to do
        local is_well, err = probe(ctx, peers[i])
        if is_well then
            note_success(ctx, peers[i])
        else
            log(INFO, "healthcheck: ", err)
            note_failure(ctx, peers[i])
        end
    end
end

local function check_all(ctx)
    local peers = ctx.peers
    local threads, size = {}, floor((#peers + ctx.concurrency - 1) / ctx.concurrency)
    for from = 1, #peers, size do
        threads[#threads + 1] = spawn(check_share, ctx, peers, from, min(from + size - 1, #peers))
    end
    for _, thread in ipairs(threads) do
        wait(thread)
    end
    if ctx.has_changed then
        ctx.has_changed = false
        ctx.version = ctx.dict:incr("v:" .. ctx.upstream, 1, 0) or ctx.version
    end
end

-- Takes over what another worker found.
local function follow(ctx)
    local version = ctx.dict:get("v:" .. ctx.upstream) or 0
    if version == ctx.version then
        return
    end
    for _, peer in ipairs(ctx.peers) do
        local is_down = ctx.dict:get(key_for("d:", ctx.upstream, peer.is_backup, peer.id)) or false
        if (peer.down or false) ~= is_down then
            peer.down = is_down
            upstream.set_peer_down(ctx.upstream, peer.is_backup, peer.id, is_down)
        end
    end
    ctx.version = version
end

-- Whether it is this worker's turn; the entry runs out a little before the next one.
local function is_my_turn(ctx)
    local ok, err = ctx.dict:add("l:" .. ctx.upstream, true, ctx.interval - 0.001)
    if not ok and err ~= "exists" then
        log(ERR, "failed to add the lock of the healthcheck: ", err)
    end
    return ok
end

local function run(premature, ctx)
    if premature then
        return
    end
    local ok, err = pcall(function()
        follow(ctx)
        if is_my_turn(ctx) then
            check_all(ctx)
        end
    end)
    if not ok then
        log(ERR, "failed to run healthcheck cycle: ", err)
    end
    ok, err = timer_at(ctx.interval, run, ctx)
    if not ok and err ~= "process exiting" then
        log(ERR, "failed to create timer: ", err)
    end
end

local function status_set(list)
    if not list then
        return nil
    end
    local set = {}
    for _, status in ipairs(list) do
        set[status] = true
    end
    return set
end

-- Starts to check the peers of `options.upstream` in this worker. Options: type ("http", "https"), http_req, shm, upstream,
-- timeout (1000 ms), interval (1000 ms), fall (5), rise (2), valid_statuses, concurrency (1), port, host, ssl_verify (true).
-- True, or nil and an error.
function _M.spawn_checker(options)
    local kind = options.type
    if not kind then
        return nil, "\"type\" option required"
    elseif kind ~= "http" and kind ~= "https" then
        return nil, "only \"http\" and \"https\" type are supported right now"
    end
    if not options.http_req then
        return nil, "\"http_req\" option required"
    elseif not options.shm then
        return nil, "\"shm\" option required"
    end
    local dict = shared[options.shm]
    if not dict then
        return nil, "shm \"" .. tostring(options.shm) .. "\" not found"
    elseif not options.upstream then
        return nil, "no upstream specified"
    end
    local peers, err = peers_of(options.upstream)
    if not peers then
        return nil, "failed to get primary peers: " .. err
    end
    local interval_ms = options.interval or INTERVAL_MS_DEFAULT
    if interval_ms < INTERVAL_MS_MIN then
        interval_ms = INTERVAL_MS_MIN
    end
    local ctx = {
        type = kind, upstream = options.upstream, peers = peers, dict = dict, http_req = options.http_req,
        timeout = options.timeout or TIMEOUT_MS_DEFAULT, interval = interval_ms / 1000,
        fall = options.fall or FALL_DEFAULT, rise = options.rise or RISE_DEFAULT,
        statuses = status_set(options.valid_statuses), concurrency = options.concurrency or CONCURRENCY_DEFAULT,
        port = options.port, host = options.host, ssl_verify = options.ssl_verify ~= false, version = 0,
    }
    local ok
    ok, err = timer_at(0, run, ctx)
    if not ok then
        return nil, "failed to create timer: " .. err
    end
    checked[options.upstream] = (checked[options.upstream] or 0) + 1
    return true
end

local function add_peers(lines, peers)
    for _, peer in ipairs(peers) do
        lines[#lines + 1] = "        " .. peer.name .. (peer.down and " DOWN" or " UP")
    end
end

-- A text about all upstreams' peers.
function _M.status_page()
    local lines = {}
    for i, name in ipairs(upstream.get_upstreams()) do
        if i > 1 then
            lines[#lines + 1] = ""
        end
        lines[#lines + 1] = "Upstream " .. name .. (checked[name] and "" or " (NO checkers)")
        for _, kind in ipairs { "Primary", "Backup" } do
            local get = kind == "Primary" and upstream.get_primary_peers or upstream.get_backup_peers
            local peers, err = get(name)
            if not peers then
                return "failed to get " .. kind .. " peers in upstream " .. name .. ": " .. err
            end
            lines[#lines + 1] = "    " .. kind .. " Peers"
            add_peers(lines, peers)
        end
    end
    return concat(lines, "\n") .. "\n"
end

local LINE = "nginx_upstream_status_info{name=\"%s\",endpoint=\"%s\",status=\"%s\",role=\"%s\"} %d\n"

-- The same for Prometheus.
function _M.prometheus_status_page()
    local out = {
        "# HELP nginx_upstream_status_info The running status of nginx upstream\n",
        "# TYPE nginx_upstream_status_info gauge\n",
    }
    for _, name in ipairs(upstream.get_upstreams()) do
        local peers, err = peers_of(name)
        if not peers then
            return nil, err
        end
        for _, peer in ipairs(peers) do
            local role = peer.is_backup and "BACKUP" or "PRIMARY"
            out[#out + 1] = LINE:format(name, peer.name, "UP", role, peer.down and 0 or 1)
            out[#out + 1] = LINE:format(name, peer.name, "DOWN", role, peer.down and 1 or 0)
        end
    end
    return concat(out)
end

return _M
