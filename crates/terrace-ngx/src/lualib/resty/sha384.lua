-- The SHA384 digest under the name that scripts know; the class is made in terrace.digest.

local digest = require "terrace.digest"

return digest.class(digest.SHA384)
