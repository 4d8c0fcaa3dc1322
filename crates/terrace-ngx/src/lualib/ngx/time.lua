-- ngx.now, ngx.time and their kin; module resty.core.time.

local base = require "terrace.base"

local native, take, text = base.native, base.take, base.text
local date, sub = os.date, string.sub
local error, type = error, type

function ngx.now()
    return native.now()
end

function ngx.time()
    return native.time()
end

function ngx.update_time()
    native.update_time()
end

function ngx.localtime()
    native.local_time(text)
    return take()
end

function ngx.today()
    native.local_time(text)
    return sub(take(), 1, 10)
end

function ngx.utctime()
    return date("!%Y-%m-%d %H:%M:%S", native.time())
end

local function check(value, expected)
    if type(value) ~= expected then
        error(expected .. " argument only", 3)
    end
end

function ngx.cookie_time(seconds)
    check(seconds, "number")
    native.cookie_time(seconds, text)
    return take()
end

function ngx.http_time(seconds)
    check(seconds, "number")
    native.http_time(seconds, text)
    return take()
end

function ngx.parse_http_time(date_text)
    check(date_text, "string")
    local seconds = native.parse_http_time(date_text, #date_text)
    if seconds < 0 then
        return nil
    end
    return seconds
end

package.loaded["resty.core.time"] = {
    monotonic_msec = function() return native.monotonic_ms() end,
    monotonic_time = function() return native.monotonic_ms() / 1000 end,
}
