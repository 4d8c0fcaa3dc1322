-- resty.template with errors as return values (nil, err) instead of raised.

return require("resty.template").new(true)
