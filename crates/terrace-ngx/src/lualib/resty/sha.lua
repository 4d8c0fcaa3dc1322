-- Scripts load this module only because the digest modules of OpenResty do; it carries nothing but its version.

local _M = { _VERSION = "0.1.0" }

return _M
