-- The API functions are native here, so there is nothing to replace: the module tells which release it stands for.

local base = require "resty.core.base"

return { version = base.version }
