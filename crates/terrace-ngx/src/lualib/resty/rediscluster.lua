-- A client for a Redis cluster: a command goes to the node that has its key's slot, follows MOVED and ASK, and a pipeline
-- is parted by node. The interface is that of resty-redis-cluster, which scripts require as `rediscluster`.

local slot_of = require("terrace.redis_slot").of
local slots = require "terrace.redis_slots"

local ipairs, rawset, select, setmetatable, tonumber, tostring, type, unpack =
    ipairs, rawset, select, setmetatable, tonumber, tostring, type, unpack
local concat, find, match, random = table.concat, string.find, string.match, math.random

local REDIRECTIONS_DEFAULT = 5
local METHODS_MAX = 1000
-- A slot that is being moved has keys on both sides for a moment.
local TRY_AGAIN_SLEEP_S = 0.01

local NO_SLOTS = "not slots information present, nginx might have never successfully executed cluster(\"slots\")"
local REDIRECTED_TOO_OFTEN = "failed to execute command, reaches maximum redirection attempts"

local on_all_masters = { flushall = true, flushdb = true }
local refused = { config = true, shutdown = true }
-- Commands whose first argument is no key.
local key_of = {}

local _M = { _VERSION = "1.05" }
local mt = { __index = _M }

-- A client of a cluster, whose slots are fetched if this worker does not know them yet; or nil and an error. Options: name,
-- serv_list { { ip, port }, … }, dict_name, refresh_lock_key, keepalive_timeout, keepalive_cons, connect_timeout,
-- send_timeout, read_timeout, max_redirection (5), max_connection_attempts (3), max_connection_timeout, auth, username,
-- enable_slave_read, connect_opts.
function _M.new(_, config)
    if type(config) ~= "table" or not config.name then
        return nil, " redis cluster config name is empty"
    elseif type(config.serv_list) ~= "table" or #config.serv_list < 1 then
        return nil, " redis cluster config serv_list is empty"
    end
    local map, err = slots.first(config)
    if not map then
        return nil, err
    end
    return setmetatable({ config = config, _reqs = false }, mt)
end

-- These fetch the slots: always, if nobody else does, and if they are not known.
function _M.fetch_slots(self)
    return slots.refresh(self.config)
end

_M.refresh_slots = _M.fetch_slots

function _M.init_slots(self)
    return slots.first(self.config)
end

-- The node to ask for a slot, and whether it has to be told that reading from a replica is meant.
local function choose(self, slot)
    local map = slots.known(self.config)
    if not map then
        return nil, NO_SLOTS
    end
    local group = map.groups[map.owners[slot]]
    if not group then
        return nil, "serv_list for slot " .. slot .. " is empty"
    end
    if not self.config.enable_slave_read then
        return group.master
    end
    return group.nodes[random(#group.nodes)]
end

-- Host and port of `MOVED slot host:port` and `ASK slot host:port`; an empty host is the node that answered.
local function redirection(text, node)
    local host, port = match(text, "^%u+ %d+ (.*):(%d+)$")
    if not host then
        return nil
    end
    return { ip = host ~= "" and host or node.ip, port = tonumber(port) }
end

local function key_text(key)
    return type(key) == "string" and key or tostring(key)
end

local function connect(self, node, is_asking)
    local client, err, is_refused = slots.open(self.config, node.ip, node.port)
    if not client then
        return nil, err, is_refused
    end
    local ok = true
    if is_asking then
        ok, err = client:asking()
    elseif node.is_replica then
        ok, err = client:readonly()
    end
    if not ok then
        client:close()
        return nil, err
    end
    return client
end

-- Puts a connection back; one that reads from a replica is not told anew, since that mode does no harm.
local function release(self, client, err)
    if err and (err == "closed" or err == "timeout") then
        client:close()
    else
        slots.release(self.config, client)
    end
end

-- What an error reply means for the next attempt: the node to ask and whether by ASKING, or nothing to try again with.
local function after_error(self, text, node)
    local word = match(text, "^(%u+)")
    if word == "MOVED" then
        slots.refresh(self.config)
        return "again", redirection(text, node)
    elseif word == "ASK" then
        local target = redirection(text, node)
        if not target then
            return "failed", nil, " cannot parse ask redirection host and port: msg is " .. text
        end
        return "asking", target
    elseif word == "TRYAGAIN" then
        ngx.sleep(TRY_AGAIN_SLEEP_S)
        return "again"
    elseif word == "CLUSTERDOWN" then
        slots.refresh(self.config)
        return "failed", nil, "Cannot executing command, cluster status is failed!"
    end
end

-- Runs a command of a slot, following redirections. `node` and `is_asking` say where to begin, if that is known. An
-- error reply is nil, its text, and false.
local function run(self, slot, node, is_asking, name, ...)
    local last
    for _ = 1, self.config.max_redirection or REDIRECTIONS_DEFAULT do
        local err
        if not node then
            node, err = choose(self, slot)
        end
        if not node then
            return nil, err
        end
        local client, refusal
        client, err, refusal = connect(self, node, is_asking)
        if client then
            local reply
            reply, err = client[name](client, ...)
            release(self, client, reply == nil and err)
            if reply then
                return reply
            elseif reply == nil and err and err ~= "closed" and not find(err, "connection reset", 1, true) then
                -- Whether it was run is not known: that is for the caller to judge.
                slots.refresh(self.config)
                return nil, err
            end
            local what, target, problem
            if reply == false then
                what, target, problem = after_error(self, err, node)
                if not what then
                    return nil, err, false
                end
            else
                slots.refresh(self.config)
            end
            if what == "failed" then
                return nil, problem
            end
            last, node, is_asking = err, target, what == "asking"
        elseif refusal then
            return nil, err
        else
            slots.refresh(self.config)
            last, node, is_asking = err, nil, false
        end
    end
    return nil, last and not find(last, "^%u+ %d") and last or REDIRECTED_TOO_OFTEN
end

-- The slot that a command is about; nil with an error where it cannot be run here. Scripts name their keys by number.
local function slot_for(name, first, second, ...)
    if key_of[name] then
        return key_of[name](first, second, ...)
    elseif first == nil then
        return random(16384) - 1
    end
    return slot_of(key_text(first))
end

local function script_slot(_, count, ...)
    count = tonumber(count)
    if not count then
        return nil, "Cannot execute eval without keys number"
    elseif count == 0 then
        return random(16384) - 1
    end
    local slot
    for i = 1, count do
        local this = slot_of(key_text((select(i, ...))))
        if slot and this ~= slot then
            return nil, "Cannot execute eval with more than one keys for redis cluster"
        end
        slot = this
    end
    return slot
end

for _, name in ipairs { "eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro" } do
    key_of[name] = script_slot
end

local function second_argument(_, key)
    return slot_of(key_text(key))
end

for _, name in ipairs { "bitop", "object", "xgroup", "xinfo", "memory" } do
    key_of[name] = second_argument
end

-- Runs a command on each master; true, or false, and the errors.
local function run_everywhere(self, name, ...)
    local map = slots.known(self.config)
    if not map then
        return nil, NO_SLOTS
    end
    local errors, done = {}, {}
    for _, group in ipairs(map.groups) do
        local node = group.master
        local address = node.ip .. ":" .. node.port
        if not done[address] then
            done[address] = true
            local client, err = connect(self, node)
            local reply
            if client then
                reply, err = client[name](client, ...)
                release(self, client, reply == nil and err)
            end
            if not reply then
                errors[#errors + 1] = tostring(err)
            end
        end
    end
    return #errors == 0, concat(errors, ";")
end

local function command(name)
    return function(self, ...)
        if refused[name] then
            return nil, "command not supported"
        end
        local pipeline = self._reqs
        if not pipeline and on_all_masters[name] then
            return run_everywhere(self, name, ...)
        end
        local slot, err = slot_for(name, ...)
        if not slot then
            return nil, err
        elseif pipeline then
            pipeline[#pipeline + 1] = { name = name, slot = slot, count = select("#", ...), ... }
            return
        end
        local reply, problem = run(self, slot, nil, false, name, ...)
        return reply, problem
    end
end

function _M.init_pipeline(self)
    self._reqs = {}
end

function _M.cancel_pipeline(self)
    self._reqs = false
end

-- Requests by the node that has their slot: list of { node, indexes }.
local function by_node(self, requests)
    local shares, of = {}, {}
    local replica_of = {}
    for index, request in ipairs(requests) do
        local master, err = choose(self, request.slot)
        if not master then
            return nil, err
        end
        -- Of a group's nodes the pipeline as a whole asks one.
        local map = slots.known(self.config)
        local group = map.owners[request.slot]
        local node = replica_of[group] or master
        replica_of[group] = node
        local address = node.ip .. ":" .. node.port
        local share = of[address]
        if not share then
            share = { node = node, indexes = {} }
            of[address] = share
            shares[#shares + 1] = share
        end
        share.indexes[#share.indexes + 1] = index
    end
    return shares
end

-- Sends one node's share and reads the replies; nil and an error where the node cannot be asked.
local function run_share(self, requests, share)
    local client, err, is_refused = connect(self, share.node)
    if not client then
        return nil, err, is_refused
    end
    client:init_pipeline(#share.indexes)
    for _, index in ipairs(share.indexes) do
        local request = requests[index]
        client[request.name](client, unpack(request, 1, request.count))
    end
    local replies
    replies, err = client:commit_pipeline()
    release(self, client, not replies and err)
    return replies, err
end

-- The final reply to one request of a pipeline: errors that redirect are followed.
local function settle(self, request, reply, state)
    if type(reply) ~= "table" or reply[1] ~= false or type(reply[2]) ~= "string" then
        return reply
    end
    local text = reply[2]
    local word = match(text, "^(%u+)")
    local target
    if word == "CLUSTERDOWN" then
        slots.refresh(self.config)
        return nil, "Cannot executing pipeline command, cluster status is failed!"
    elseif word == "ASK" then
        target = redirection(text, state.node)
    elseif word == "MOVED" then
        if not state.is_refreshed then
            state.is_refreshed = true
            slots.refresh(self.config)
        end
        target = redirection(text, state.node)
    elseif word ~= "TRYAGAIN" then
        return reply
    end
    local settled, err, is_reply =
        run(self, request.slot, target, word == "ASK", request.name, unpack(request, 1, request.count))
    if is_reply == false then
        return { false, err }
    end
    return settled, err
end

-- Sends the commands collected, to each node its own, and answers all replies in their order.
function _M.commit_pipeline(self)
    local requests = self._reqs
    if not requests or #requests == 0 then
        self._reqs = false
        return
    end
    self._reqs = false
    local shares, err = by_node(self, requests)
    if not shares then
        return nil, err
    end
    local results = {}
    for _, share in ipairs(shares) do
        local replies, problem = run_share(self, requests, share)
        if not replies then
            slots.refresh(self.config)
            return nil, tostring(problem) .. " return from " .. tostring(share.node.ip) .. ":" .. tostring(share.node.port)
        end
        local state = { node = share.node }
        for at, index in ipairs(share.indexes) do
            local reply
            reply, problem = settle(self, requests[index], replies[at], state)
            if reply == nil then
                return nil, problem
            end
            results[index] = reply
        end
    end
    return results
end

local made = 0

setmetatable(_M, {
    __index = function(_, name)
        if type(name) ~= "string" or not find(name, "^%a") then
            return nil
        end
        local method = command(name)
        if made < METHODS_MAX then
            made = made + 1
            rawset(_M, name, method)
        end
        return method
    end,
})

return _M
