-- /api/echo: sends a JSON document back.

local answer = require "gateway.answer"
local cjson = require "cjson.safe"

ngx.req.read_body()
local value = cjson.decode(ngx.req.get_body_data() or "")
if value == nil then
    return answer.fail(400, "the body is no JSON")
end
answer.send({ result = value })
