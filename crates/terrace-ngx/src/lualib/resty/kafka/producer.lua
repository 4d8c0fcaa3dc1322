-- Sends messages to Kafka: at once (`sync`), or collected in this worker and sent in batches by timers (`async`).

local client_class = require "resty.kafka.client"
local errors = require "resty.kafka.errors"
local queue_class = require "terrace.kafka_queue"
local wire = require "terrace.kafka_wire"

local concat, ipairs, min, next, pairs, pcall, setmetatable, tostring =
    table.concat, ipairs, math.min, next, pairs, pcall, setmetatable, tostring
local crc32, exiting, log, now, sleep = ngx.crc32_long, ngx.worker.exiting, ngx.log, ngx.now, ngx.sleep
local timer_at, timer_every = ngx.timer.at, ngx.timer.every
local DEBUG, ERR = ngx.DEBUG, ngx.ERR

local PRODUCE = 0
-- From this version on there are record batches; brokers since 4.0 take nothing else.
local BATCH_VERSION = 3
local CORRELATION_ID_MAX = 1073741824

local REQUEST_TIMEOUT_MS_DEFAULT = 2000
local RETRY_BACKOFF_MS_DEFAULT = 100
local RETRIES_DEFAULT = 3
local FLUSH_MS_DEFAULT = 1000
local BATCH_MESSAGES_DEFAULT = 200
local BATCH_BYTES_DEFAULT = 1048576
local BUFFERED_MESSAGES_DEFAULT = 50000
local BUFFER_WAIT_S_DEFAULT = 5

local _M = { _VERSION = "0.20" }
local mt = { __index = _M }

-- The asynchronous producer of each cluster's name: all requests of the worker share it.
local shared = {}

local function default_partitioner(key, count, correlation_id)
    local id = key and crc32(key) or correlation_id
    return id % count
end

local function next_correlation_id(self)
    self.correlation_id = (self.correlation_id + 1) % CORRELATION_ID_MAX
    return self.correlation_id
end

-- The version of the request, and whether messages go as a record batch.
local function version_for(self)
    local version = self.version
    if not version then
        version = self.client:choose_api_version(PRODUCE, BATCH_VERSION, BATCH_VERSION)
        if version < 0 then
            version = self.api_version
        end
        -- Nothing was learnt if nobody answered.
        if next(self.client.api_versions) then
            self.version = version
        else
            self.client.api_versions = false
        end
    end
    return version
end

-- The request for one broker: topic -> partition -> { queue, index }.
local function encode(self, topics, version)
    local now_ms = now() * 1000
    local out = {
        version >= BATCH_VERSION and wire.string16(nil) or "", wire.int16(self.required_acks),
        wire.int32(self.request_timeout), "",
    }
    local topics_count = 0
    for topic, partitions in pairs(topics) do
        topics_count = topics_count + 1
        out[#out + 1] = wire.string16(topic)
        local at, count = #out + 1, 0
        out[at] = ""
        for id, batch in pairs(partitions) do
            count = count + 1
            local messages
            if version >= BATCH_VERSION then
                messages = wire.record_batch(batch.queue, batch.index, now_ms)
            else
                messages = wire.message_set(batch.queue, batch.index, version == 2 and 1 or 0, now_ms)
            end
            out[#out + 1] = wire.int32(id)
            out[#out + 1] = wire.bytes32(messages)
        end
        out[at] = wire.int32(count)
    end
    out[4] = wire.int32(topics_count)
    return concat(out)
end

-- The response: calls `each(topic, partition, code, offset)`.
local function decode(reader, version, each)
    for _ = 1, reader:count() do
        local topic = reader:string16()
        for _ = 1, reader:count() do
            local partition, code, offset = reader:int32(), reader:int16(), reader:int64()
            if version >= 2 then
                reader:int64()
            end
            each(topic, partition, code, offset)
        end
    end
end

-- A producer. Options besides those of the client: producer_type ("sync" or "async"), request_timeout (2000),
-- required_acks (1), max_retry (3), retry_backoff (100), api_version, partitioner; and for async flush_time (1000),
-- batch_num (200), batch_size (1048576), max_buffering (50000), error_handle, wait_on_buffer_full, wait_buffer_timeout (5 s).
function _M.new(_, brokers, config, cluster_name)
    config, cluster_name = config or {}, cluster_name or 1
    local is_async = config.producer_type == "async"
    if is_async and shared[cluster_name] then
        return shared[cluster_name]
    end
    local self = setmetatable({
        client = client_class:new(brokers, config),
        correlation_id = 1,
        request_timeout = config.request_timeout or REQUEST_TIMEOUT_MS_DEFAULT,
        retry_backoff = config.retry_backoff or RETRY_BACKOFF_MS_DEFAULT,
        max_retry = config.max_retry or RETRIES_DEFAULT,
        required_acks = config.required_acks or 1,
        partitioner = config.partitioner or default_partitioner,
        api_version = config.api_version or 0,
        version = false,
        -- topic -> partition -> the offset that the broker told last.
        offsets = {},
        async = is_async,
    }, mt)
    if not is_async then
        return self
    end
    self.error_handle = config.error_handle
    self.batch_num = config.batch_num or BATCH_MESSAGES_DEFAULT
    self.batch_size = config.batch_size or BATCH_BYTES_DEFAULT
    self.queue = queue_class.new(config.max_buffering or BUFFERED_MESSAGES_DEFAULT,
        config.wait_on_buffer_full and (config.wait_buffer_timeout or BUFFER_WAIT_S_DEFAULT) or nil)
    self.is_flushing = false
    self.has_timer = false
    local ok, err = timer_every((config.flush_time or FLUSH_MS_DEFAULT) / 1000, function()
        self:_flush_all()
    end)
    if not ok then
        log(ERR, "failed to create timer_every, err: ", err)
    end
    shared[cluster_name] = self
    return self
end

-- A topic that is just being made has no partitions for a moment, so there are as many tries as for sending.
local function choose_partition(self, topic, key)
    local brokers, partitions
    for try = 1, self.max_retry do
        brokers, partitions = self.client:fetch_metadata(topic)
        if brokers then
            return self.partitioner(key, partitions.num, next_correlation_id(self))
        elseif try < self.max_retry then
            sleep(self.retry_backoff / 1000)
        end
    end
    return nil, partitions
end

local function note_offset(self, topic, partition, offset)
    local of_topic = self.offsets[topic]
    if not of_topic then
        of_topic = {}
        self.offsets[topic] = of_topic
    end
    of_topic[partition] = offset
end

-- Sends batches (topic -> partition -> { queue, index }) to one broker. Each batch gets `is_done`, or `err` and
-- `is_retryable`, which says that the broker surely does not have it.
local function send_to(self, broker, topics)
    local function fail(err, is_retryable)
        for _, partitions in pairs(topics) do
            for _, batch in pairs(partitions) do
                batch.err, batch.is_retryable = err, is_retryable
            end
        end
    end
    local version = version_for(self)
    local reader, err, is_unsent = self.client:_ask(broker, PRODUCE, version, next_correlation_id(self),
        encode(self, topics, version))
    if not reader then
        return fail(err, is_unsent or false)
    end
    fail("no answer for the partition", false)
    decode(reader, version, function(topic, partition, code, offset)
        local batch = topics[topic] and topics[topic][partition]
        if not batch then
            return
        elseif code == 0 then
            batch.is_done, batch.offset = true, offset
            note_offset(self, topic, partition, offset)
        else
            local known = errors[code] or errors[-1]
            batch.err, batch.is_retryable = known.msg, known.retriable
        end
    end)
end

-- Sends what is not done of { topic, partition, queue, index }, each to the leader of its partition. Answers what is left.
local function send_round(self, batches)
    local shares = {}
    for _, batch in ipairs(batches) do
        local broker, err = self.client:choose_broker(batch.topic, batch.partition)
        if not broker then
            batch.err, batch.is_retryable = err, true
        else
            local share = shares[broker]
            if not share then
                share = {}
                shares[broker] = share
            end
            share[batch.topic] = share[batch.topic] or {}
            share[batch.topic][batch.partition] = batch
        end
    end
    for broker, topics in pairs(shares) do
        send_to(self, broker, topics)
    end
    local left = {}
    for _, batch in ipairs(batches) do
        if not batch.is_done then
            left[#left + 1] = batch
        end
    end
    return left
end

-- Sends batches with as many tries as there are to be; answers what failed at last.
local function send_all(self, batches)
    local tries = self.max_retry
    for try = 1, tries do
        batches = send_round(self, batches)
        if #batches == 0 then
            return batches
        end
        log(DEBUG, "retry to send messages to kafka, err: ", batches[1].err)
        if try < tries then
            sleep(self.retry_backoff / 1000)
        end
        -- Another broker may lead now.
        self.client:refresh()
    end
    return batches
end

local function send_now(self, topic, key, message)
    local partition, err = choose_partition(self, topic, key)
    if not partition then
        return nil, err
    end
    local batch = { topic = topic, partition = partition, queue = { key or "", message }, index = 2 }
    send_all(self, { batch })
    if not batch.is_done then
        return nil, batch.err
    end
    return batch.offset
end

local function give_up(self, batch)
    local handle = self.error_handle
    if not handle then
        log(ERR, "buffered messages send to kafka err: ", batch.err, ", retryable: ", tostring(batch.is_retryable),
            ", topic: ", batch.topic, ", partition_id: ", batch.partition, ", length: ", batch.index / 2)
        return
    end
    local ok, err = pcall(handle, batch.topic, batch.partition, batch.queue, batch.index, batch.err, batch.is_retryable)
    if not ok then
        log(ERR, "failed to callback error_handle: ", err)
    end
end

-- Takes messages off the queue until one batch is full. Answers the batches of each partition, and those without one.
local function collect(self)
    local batches, of, bytes, unknown = {}, {}, 0, {}
    local limit = self.batch_num
    local count = min(self.queue.count, limit * 64)
    for _ = 1, count do
        local topic, key, message = self.queue:pop()
        local partition, err = nil, unknown[topic]
        if not err then
            partition, err = choose_partition(self, topic, key ~= "" and key or nil)
            unknown[topic] = err
        end
        local name = topic .. ":" .. tostring(partition or -1)
        local batch = of[name]
        if not batch then
            batch = { topic = topic, partition = partition or -1, queue = {}, index = 0, err = err, is_lost = not partition,
                is_retryable = not partition }
            of[name] = batch
            batches[#batches + 1] = batch
        end
        batch.queue[batch.index + 1], batch.queue[batch.index + 2] = key, message
        batch.index = batch.index + 2
        bytes = bytes + #key + #message
        if batch.index >= limit * 2 or bytes >= self.batch_size then
            break
        end
    end
    return batches
end

-- Sends all that is buffered; one coroutine of the worker at a time does.
function _M._flush_all(self)
    if self.is_flushing then
        log(DEBUG, "previous flush not finished")
        return
    end
    self.is_flushing = true
    while self.queue.count > 0 do
        local batches, known = collect(self), {}
        for _, batch in ipairs(batches) do
            if batch.is_lost then
                give_up(self, batch)
            else
                known[#known + 1] = batch
            end
        end
        local ok, failed = pcall(send_all, self, known)
        if not ok then
            log(ERR, "failed to send buffered messages: ", failed)
        else
            for _, batch in ipairs(failed) do
                give_up(self, batch)
            end
        end
    end
    self.is_flushing = false
end

local function flush_soon(self)
    if self.has_timer or self.is_flushing then
        return
    end
    self.has_timer = true
    local ok, err = timer_at(0, function()
        self.has_timer = false
        self:_flush_all()
    end)
    if not ok then
        self.has_timer = false
        log(ERR, "failed to create timer_at timer, err:", err)
    end
end

-- Sync: the offset of the message (a cdata integer). Async: true once it is buffered. Else nil and an error.
function _M.send(self, topic, key, message)
    if not self.async then
        return send_now(self, topic, key, message)
    end
    local ok, err = self.queue:push(topic, key or "", message)
    if not ok then
        return nil, err
    end
    if self.queue.count >= self.batch_num or exiting() then
        flush_soon(self)
    end
    return true
end

-- Sends what is buffered. Always true.
function _M.flush(self)
    if self.async then
        self:_flush_all()
    end
    return true
end

-- The sum of the offsets that brokers told last, and those of each topic's partitions.
function _M.offset(self)
    local sum, details = 0, {}
    for topic, partitions in pairs(self.offsets) do
        details[topic] = {}
        for partition, offset in pairs(partitions) do
            sum = sum + offset
            details[topic][partition] = offset
        end
    end
    return sum, details
end

return _M
