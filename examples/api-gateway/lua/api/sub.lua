-- /api/sub?a=3&b=2

local answer = require "gateway.answer"
local arguments = require "gateway.arguments"

local a, b = arguments.numbers("a", "b")
answer.send({ result = a - b })
