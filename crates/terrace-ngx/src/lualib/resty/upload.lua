-- Reads a multipart/form-data body piece by piece, as it comes: fields of each part, its data, its end.

local concat, match, setmetatable, type = table.concat, string.match, setmetatable, type
local req = ngx.req

local CHUNK_BYTES_DEFAULT = 4096
local LINE_BYTES_MAX_DEFAULT = 512

local READING_BODY, READING_HEADER, BEGIN, EOF = 3, 2, 1, 4

local _M = { _VERSION = "0.11" }
local mt = { __index = _M }

local function boundary_of(content_type)
    if type(content_type) == "table" then
        content_type = content_type[1]
    end
    if not content_type then
        return nil
    end
    return match(content_type, ";%s*boundary=\"([^\"]+)\"") or match(content_type, ";%s*boundary=([^\",;]+)")
end

-- A socket that keeps what is read, so that the body can be given back to the request.
local function preserving(sock)
    local kept = {}
    local function keep(data)
        if data then
            kept[#kept + 1] = data
        end
        return data
    end
    local wrapped = {
        kept = kept,
        settimeout = function(_, timeout)
            return sock:settimeout(timeout)
        end,
        receive = function(_, size)
            local data, err, partial = sock:receive(size)
            return keep(data), err, partial
        end,
    }
    function wrapped.receiveuntil(_, pattern)
        local read = sock:receiveuntil(pattern)
        return function(size)
            local data, err, partial = read(size)
            if size then
                if data then
                    keep(data)
                elseif not err then
                    keep(pattern)
                end
            elseif data then
                keep(data)
                keep(pattern)
            end
            return data, err, partial
        end
    end
    return wrapped
end

-- A form; or nil and an error. Data is read in pieces of `chunk_size` (4096) bytes; a part's field may have up to
-- `max_line_size` (512) bytes. With `preserve_body` the request has its body again at the end.
function _M.new(_, chunk_size, max_line_size, preserve_body)
    local boundary = boundary_of(req.get_headers()["content-type"])
    if not boundary then
        return nil, "no boundary defined in Content-Type"
    end
    local sock, err = req.socket()
    if not sock then
        return nil, err
    end
    if preserve_body then
        sock = preserving(sock)
    end
    return setmetatable({
        sock = sock,
        size = chunk_size or CHUNK_BYTES_DEFAULT,
        line_size = max_line_size or LINE_BYTES_MAX_DEFAULT,
        boundary = boundary,
        read2boundary = sock:receiveuntil("--" .. boundary),
        read_line = sock:receiveuntil("\r\n"),
        state = BEGIN,
        preserve_body = preserve_body,
    }, mt)
end

function _M.set_timeout(self, timeout)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    return sock:settimeout(timeout)
end

-- A line, or nil and an error.
local function read_line(self)
    local line, err = self.read_line(self.line_size)
    if not line then
        return nil, err or "line missing"
    end
    -- What is left of it: nothing, unless it is too long.
    local rest
    rest, err = self.read_line(1)
    if rest then
        return nil, "line too long: " .. line .. rest .. "..."
    elseif err then
        return nil, err
    end
    return line
end

-- Reads on to where nothing follows, and gives the body back.
local function finish(self)
    self.state = EOF
    local sock = self.sock
    if not self.preserve_body then
        -- What follows the last boundary is of no meaning, but belongs to the body.
        repeat
            local data = sock:receive(CHUNK_BYTES_DEFAULT)
        until not data
        return
    end
    local data, _, partial
    repeat
        data, _, partial = sock:receive(CHUNK_BYTES_DEFAULT)
    until not data
    local kept = sock.kept
    if partial then
        kept[#kept + 1] = partial
    end
    local body = concat(kept)
    req.init_body(#body)
    req.append_body(body)
    req.finish_body()
end

-- What follows a boundary: the end, or another part.
local function after_boundary(self)
    local sock = self.sock
    local two, err = sock:receive(2)
    if not two then
        return nil, err
    elseif two == "--" then
        finish(self)
        return true
    elseif two ~= "\r\n" then
        local ok
        ok, err = read_line(self)
        if not ok then
            return nil, err
        end
    end
    self.state = READING_HEADER
    return true
end

local function read_body(self)
    local chunk, err = self.read2boundary(self.size)
    if err then
        return nil, nil, err
    elseif chunk then
        return "body", chunk
    end
    local ok
    ok, err = after_boundary(self)
    if not ok then
        return nil, nil, err
    end
    return "part_end"
end

local function read_header(self)
    local line, err = self.read_line(self.line_size)
    if err then
        return nil, nil, err
    end
    if line then
        local rest
        rest, err = self.read_line(1)
        if rest then
            return nil, nil, "line too long: " .. line .. rest .. "..."
        elseif err then
            return nil, nil, err
        end
    end
    if not line or line == "" then
        self.state = READING_BODY
        -- From here on the boundary has a line end ahead of it, which is no data.
        if not self.is_past_first then
            self.is_past_first = true
            self.read2boundary = self.sock:receiveuntil("\r\n--" .. self.boundary)
        end
        return read_body(self)
    end
    local name, value = match(line, "([^: \t]+)%s*:%s*(.+)")
    if not name then
        return "header", line
    end
    return "header", { name, value, line }
end

local function read_preamble(self)
    local size = self.size
    while true do
        local preamble, err = self.read2boundary(size)
        if err then
            return nil, nil, err
        elseif not preamble then
            break
        end
    end
    local ok, err = after_boundary(self)
    if not ok then
        return nil, nil, err
    elseif self.state == EOF then
        return "eof"
    end
    return read_header(self)
end

-- The next token: "header" with { name, value, line } or the line as it is, "body" with data, "part_end", "eof". Or nil, nil
-- and an error.
function _M.read(self)
    local state = self.state
    if state == READING_BODY then
        return read_body(self)
    elseif state == READING_HEADER then
        return read_header(self)
    elseif state == BEGIN then
        return read_preamble(self)
    end
    return "eof"
end

return _M
