-- resty.kafka.* against a broker at port PORT_OF_STORE, with the topic `lua` of three partitions.
--
-- Expected output:
--   true 3 true -1
--   0 0LL
--   1 1LL
--   2 2LL
--   3 3LL
--   not found partition
--   same key, same partition: true
--   async: true 25 true
--   all brokers failed in fetch topic metadata
--   true buffer overflow
--   lost: other -1 4 all brokers failed in fetch topic metadata true

local client_class = require "resty.kafka.client"
local producer_class = require "resty.kafka.producer"

local brokers = { { host = "127.0.0.1", port = PORT_OF_STORE } }
local client = client_class:new(brokers)
local known, partitions = client:fetch_metadata("lua")
ngx.say(known[1].port == PORT_OF_STORE, " ", partitions.num, " ", client:choose_api_version(0) >= 3, " ",
    client:choose_api_version(999))

-- All formats of messages that brokers have known.
for version = 0, 3 do
    local producer = producer_class:new(brokers, { partitioner = function() return 2 end })
    producer.version = version
    ngx.say(version, " ", tostring((producer:send("lua", "key", "version " .. version))))
end
local wrong = producer_class:new(brokers, { max_retry = 1, partitioner = function() return 9 end })
ngx.say((select(2, wrong:send("lua", "key", "lost"))))

local keyed = producer_class:new(brokers, {})
for _ = 1, 3 do
    assert(keyed:send("lua", "one key", "keyed"))
end
local _, details = keyed:offset()
local count = 0
for _ in pairs(details.lua) do
    count = count + 1
end
ngx.say("same key, same partition: ", count == 1)

local async = producer_class:new(brokers, { producer_type = "async", flush_time = 3600000, batch_num = 10 })
for i = 1, 25 do
    assert(async:send("lua", nil, "async " .. i))
end
-- Timers send full batches meanwhile; what they have begun is waited for.
while async.queue.count > 0 or async.is_flushing do
    async:flush()
    ngx.sleep(0.001)
end
local _, offsets = async:offset()
ngx.say("async: ", next(offsets.lua) ~= nil, " ", 25 - async.queue.count, " ",
    producer_class:new(brokers, { producer_type = "async" }) == async)

local nowhere = { { host = "127.0.0.1", port = 1 } }
ngx.say((select(2, producer_class:new(nowhere, { max_retry = 1 }):send("lua", "k", "v"))))
local lost
local small = producer_class:new(nowhere, {
    producer_type = "async", max_buffering = 2, max_retry = 1, flush_time = 3600000,
    error_handle = function(topic, partition, _, index, err, retryable)
        lost = topic .. " " .. partition .. " " .. index .. " " .. err .. " " .. tostring(retryable)
    end,
}, "other")
small:send("other", "k", "v")
ngx.say((small:send("other", "k", "v")), " ", select(2, small:send("other", "k", "v")))
small:flush()
ngx.say("lost: ", lost)
