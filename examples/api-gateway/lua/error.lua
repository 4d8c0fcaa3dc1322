-- What the server itself refused, such as a body that is too large or a service that is down.

local answer = require "gateway.answer"

return answer.fail(ngx.status)
