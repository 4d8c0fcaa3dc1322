-- Arguments of the scripts in lua/api/.

local answer = require "gateway.answer"
local settings = require "gateway.settings"

local _M = {}

-- The values of `names`, each given once and a finite number; else the request ends with 400.
function _M.numbers(...)
    local args, err = ngx.req.get_uri_args(settings.arguments_max)
    if err then
        return answer.fail(400, "more than " .. settings.arguments_max .. " arguments")
    end
    local values = {}
    for i, name in ipairs({ ... }) do
        local value = type(args[name]) == "string" and tonumber(args[name])
        if not value or value ~= value or math.abs(value) == math.huge then
            return answer.fail(400, name .. " is not a number")
        end
        values[i] = value
    end
    return unpack(values)
end

return _M
