-- Any other address of an application server.

local clock = require "eshop.clock"
local page = require "eshop.page"

page.send_error(404, { started_us = clock.now_us() })
