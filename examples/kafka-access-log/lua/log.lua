-- Sends what happened to the access log.

local cjson = require "cjson.safe"
local record = require "access_log.record"
local sender = require "access_log.sender"

local made, key = record.make()
sender.send(key, cjson.encode(made))
