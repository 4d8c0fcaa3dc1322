-- Gives records to the producer, which sends them in batches from a timer. One producer a worker.

local producer_class = require "resty.kafka.producer"
local settings = require "access_log.settings"

-- Producers of one name are one. The script in seed/ has its own.
local NAME = "access log"

local counts = ngx.shared.access_log_counts

local _M = {}

local function count(name, by)
    counts:incr(name, by, 0)
end

-- The brokers did not take these after all tries. `queue` has keys at odd and records at even places.
local function lost(topic, partition, queue, length, err)
    count("lost", length / 2)
    ngx.log(ngx.ERR, "access log: ", length / 2, " records for ", topic, " ", partition or -1, " are lost: ", err)
end

local options = {}
for name, value in pairs(settings.producer) do
    options[name] = value
end
options.error_handle = lost

-- Hands a text over. It does not wait; what finds no room is dropped and counted.
function _M.send(key, text)
    local producer = producer_class:new(settings.brokers, options, NAME)
    local ok, err = producer:send(settings.topic, key, text)
    if ok then
        return count("taken", 1)
    end
    count("dropped", 1)
    ngx.log(ngx.ERR, "access log: a record is dropped: ", err)
end

return _M
