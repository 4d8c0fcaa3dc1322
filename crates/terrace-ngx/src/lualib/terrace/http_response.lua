-- The methods of the responses that resty.http returns. A response also has status, reason, version, headers, has_body
-- and body_reader, which the client fills in.

local concat = table.concat
local pairs = pairs

local _M = { _VERSION = "0.1.0" }

-- The rest of the body as a string, or nil, an error and what was read.
function _M.read_body(self)
    local reader = self.body_reader
    if not reader then
        return nil, "response has no body reader"
    end
    local first, err, partial = reader()
    if not first then
        return not err and "" or nil, err, partial
    end
    local pieces, count = { first }, 1
    while true do
        local piece
        piece, err, partial = reader()
        if not piece then
            break
        end
        count = count + 1
        pieces[count] = piece
    end
    if err then
        pieces[count + 1] = partial
        return nil, err, concat(pieces)
    end
    return count == 1 and first or concat(pieces)
end


-- Adds the trailers to the headers, without replacing any. To be called after the body has been read.
function _M.read_trailers(self)
    local trailers, headers = self.trailers, self.headers
    if not trailers then
        return headers
    end
    for name, value in pairs(trailers) do
        if headers[name] == nil then
            headers[name] = value
        end
    end
    self.trailers = nil
    return headers
end


return _M
