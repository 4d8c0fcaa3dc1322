-- The submodules of resty.core replace functions of `ngx` that are native here already.

return { version = require("resty.core.base").version }
