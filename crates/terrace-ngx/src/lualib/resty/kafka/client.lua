-- What a Kafka cluster looks like: its brokers, and which of them leads each partition of the topics in use.

local broker_io = require "terrace.kafka_broker"
local errors = require "resty.kafka.errors"
local wire = require "terrace.kafka_wire"

local concat, ipairs, max, min, next, pairs, setmetatable =
    table.concat, ipairs, math.max, math.min, next, pairs, setmetatable
local every, log, WARN = ngx.timer.every, ngx.log, ngx.WARN

local METADATA, API_VERSIONS = 3, 18
local SOCKET_TIMEOUT_MS_DEFAULT = 3000
local KEEPALIVE_TIMEOUT_MS_DEFAULT = 600 * 1000
local KEEPALIVE_SIZE_DEFAULT = 2

local _M = {}
local mt = { __index = _M }

-- A client for the cluster that any of `brokers` { { host, port, sasl_config? }, … } is of. Options: socket_timeout (3000),
-- keepalive_timeout (600000), keepalive_size (2), refresh_interval (none), ssl, ssl_verify, resolver.
function _M.new(_, brokers, config)
    config = config or {}
    local self = setmetatable({
        broker_list = brokers,
        topic_partitions = {},
        brokers = {},
        api_versions = false,
        client_id = "worker" .. ngx.worker.pid(),
        config = {
            socket_timeout = config.socket_timeout or SOCKET_TIMEOUT_MS_DEFAULT,
            keepalive_timeout = config.keepalive_timeout or KEEPALIVE_TIMEOUT_MS_DEFAULT,
            keepalive_size = config.keepalive_size or KEEPALIVE_SIZE_DEFAULT,
            ssl = config.ssl or false,
            ssl_verify = config.ssl_verify or false,
            resolver = config.resolver,
        },
    }, mt)
    self.config.client_id = self.client_id
    if config.refresh_interval then
        every(config.refresh_interval / 1000, function(premature)
            if not premature then
                self:refresh()
            end
        end)
    end
    return self
end

local function read_metadata(reader)
    local brokers, topics = {}, {}
    for _ = 1, reader:count() do
        local id = reader:int32()
        brokers[id] = { host = reader:string16(), port = reader:int32() }
    end
    for _ = 1, reader:count() do
        local code = reader:int16()
        local topic = { errcode = code, num = 0 }
        topics[reader:string16() or ""] = topic
        for _ = 1, reader:count() do
            local partition = { errcode = reader:int16(), id = reader:int32(), leader = reader:int32() }
            partition.replicas, partition.isr = {}, {}
            for i = 1, reader:count() do
                partition.replicas[i] = reader:int32()
            end
            for i = 1, reader:count() do
                partition.isr[i] = reader:int32()
            end
            topic[partition.id] = partition
            topic.num = topic.num + 1
        end
    end
    return brokers, topics
end

-- Who may be asked about the cluster: the brokers that are known, then those of the configuration.
local function candidates(self)
    local list = {}
    local sasl = self.broker_list[1] and self.broker_list[1].sasl_config
    for _, broker in pairs(self.brokers) do
        list[#list + 1] = { host = broker.host, port = broker.port, sasl_config = sasl }
    end
    for _, broker in ipairs(self.broker_list) do
        list[#list + 1] = broker
    end
    return list
end

local function fetch(self, names)
    local body = { wire.int32(#names) }
    for i, name in ipairs(names) do
        body[i + 1] = wire.string16(name)
    end
    local request = broker_io.request(METADATA, 0, 0, self.client_id, concat(body))
    for _, broker in ipairs(candidates(self)) do
        local reader, err = broker_io.ask(self.config, broker, request)
        if reader then
            local brokers, topics = read_metadata(reader)
            if not reader.is_short and next(brokers) then
                self.brokers = brokers
                for name, topic in pairs(topics) do
                    -- A topic that is just being made has no partitions yet.
                    self.topic_partitions[name] = topic.num > 0 and topic or self.topic_partitions[name] or topic
                end
                return brokers, topics
            end
            err = "bad metadata"
        end
        log(WARN, "broker fetch metadata failed, err:", err, ", host: ", broker.host, ", port: ", broker.port)
    end
    return nil, "all brokers failed in fetch topic metadata"
end

-- Brokers by id, and the topic's partitions by id with `num`; or nil and an error.
function _M.fetch_metadata(self, topic)
    local known = self.topic_partitions[topic]
    if known and known.num > 0 then
        return self.brokers, known
    end
    local brokers, err = fetch(self, { topic })
    if not brokers then
        return nil, err
    end
    local partitions = self.topic_partitions[topic]
    if not partitions or partitions.num == 0 then
        local code = partitions and partitions.errcode or 0
        return nil, code ~= 0 and errors[code] and errors[code].msg or "not found topic"
    end
    return brokers, partitions
end

-- Fetches anew what was fetched: brokers and all topics' partitions, or nil and an error.
function _M.refresh(self)
    local names = {}
    for name in pairs(self.topic_partitions) do
        names[#names + 1] = name
    end
    if #names == 0 then
        return nil, "not topic"
    end
    local brokers, err = fetch(self, names)
    if not brokers then
        return nil, err
    end
    return brokers, self.topic_partitions
end

-- The broker that leads a partition: { host, port, sasl_config }; or nil and an error.
function _M.choose_broker(self, topic, partition_id)
    local brokers, partitions = self:fetch_metadata(topic)
    if not brokers then
        return nil, partitions
    end
    local partition = partitions[partition_id]
    if not partition then
        return nil, "not found partition"
    end
    local broker = brokers[partition.leader]
    if not broker then
        return nil, "not found broker"
    end
    local first = self.broker_list[1]
    broker.sasl_config = first and first.sasl_config
    return broker
end

local function fetch_versions(self)
    local request = broker_io.request(API_VERSIONS, 0, 0, self.client_id, "")
    for _, broker in ipairs(candidates(self)) do
        local reader = broker_io.ask(self.config, broker, request)
        if reader and reader:int16() == 0 then
            local versions = {}
            for _ = 1, reader:count() do
                local key = reader:int16()
                versions[key] = { min = reader:int16(), max = reader:int16() }
            end
            return versions
        end
    end
    -- Brokers before 0.10 close the connection.
    return {}
end

-- The highest version of an API that the brokers and these limits allow; -1 where there is none.
function _M.choose_api_version(self, api_key, min_version, max_version)
    if not self.api_versions then
        self.api_versions = fetch_versions(self)
    end
    local offered = self.api_versions[api_key]
    if not offered then
        return -1
    end
    local low, high = max(offered.min, min_version or offered.min), min(offered.max, max_version or offered.max)
    return low <= high and high or -1
end

-- Sends a request to a broker. A reader of the response; or nil, an error, and whether the broker cannot have got it.
function _M._ask(self, broker, api_key, version, correlation_id, body)
    return broker_io.ask(self.config, broker, broker_io.request(api_key, version, correlation_id, self.client_id, body))
end

return _M
