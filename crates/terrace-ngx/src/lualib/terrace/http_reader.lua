-- Reads HTTP/1 messages from a cosocket: start lines, header fields, trailers, and bodies in their three framings.
--
-- Everything that a peer can make long is bounded: a line, the header section, the number of fields, interim responses.
-- Errors are returned as nil and a string: the socket's own ("timeout", "closed" ...), or what is malformed.

local http_headers = require "resty.http_headers"

local add_field = http_headers.add
local byte = string.byte
local find = string.find
local gmatch = string.gmatch
local lower = string.lower
local match = string.match
local min = math.min
local sub = string.sub
local tonumber = tonumber
local type = type

local LINE_BYTES_MAX = 65536
local SECTION_BYTES_MAX = 262144
local FIELDS_MAX = 1000
local CHUNK_DIGITS_MAX = 13
local LENGTH_DIGITS_MAX = 15

local _M = { _VERSION = "0.1.0" }


-- A function that reads one line (without its line break) of less than `limit` bytes. A reader made for one socket
-- serves all its lines: each line is taken as a piece of limited size, and then the end mark is consumed.
function _M.lines(sock)
    local next_piece, err = sock:receiveuntil("\n")
    if not next_piece then
        return nil, err
    end
    return function(limit)
        limit = limit and min(limit, LINE_BYTES_MAX) or LINE_BYTES_MAX
        local line, line_err = next_piece(limit)
        if not line then
            return nil, line_err or "closed"
        end
        if #line >= limit then
            return nil, "header line too long"
        end
        local more, end_err = next_piece(1)
        if more or end_err then
            return nil, end_err or "header line too long"
        end
        if byte(line, -1) == 13 then
            return sub(line, 1, -2)
        end
        return line
    end
end


-- Reads fields up to the empty line into a new header table.
function _M.read_fields(line_of)
    local headers = http_headers.new()
    local left = SECTION_BYTES_MAX
    for _ = 1, FIELDS_MAX do
        local line, err = line_of(left)
        if not line then
            return nil, err
        end
        if line == "" then
            return headers
        end
        left = left - #line - 1
        local name, value = match(line, "^([^%s%c:]+):[ \t]*(.-)[ \t]*$")
        if not name then
            return nil, "invalid header line"
        end
        if left <= 0 then
            return nil, "header section too large"
        end
        add_field(headers, name, value)
    end
    return nil, "too many header fields"
end


-- Reads a response's head: status, reason, version (a number such as 1.1), headers; or nil and an error.
function _M.read_head(line_of)
    local line, err = line_of()
    if not line then
        return nil, err
    end
    local version, status, reason = match(line, "^HTTP/(%d%.%d) (%d%d%d) ?(.*)$")
    if not version then
        return nil, "invalid status line"
    end
    local headers, fields_err = _M.read_fields(line_of)
    if not headers then
        return nil, fields_err
    end
    return tonumber(status), reason, tonumber(version), headers
end


-- Whether a list-valued field (a string or a table of strings) holds a token, in any case.
function _M.has_token(value, token)
    if value == nil then
        return false
    end
    if type(value) == "table" then
        for i = 1, #value do
            if _M.has_token(value[i], token) then
                return true
            end
        end
        return false
    end
    value = lower(value)
    if value == token then
        return true
    end
    if not find(value, token, 1, true) then
        return false
    end
    for item in gmatch(value, "[^,%s]+") do
        if item == token then
            return true
        end
    end
    return false
end


-- The length that Content-Length tells: a number, nil when there is none, or false when it is malformed. Repeated
-- fields must agree.
function _M.content_length(headers)
    local value = headers["Content-Length"]
    if value == nil then
        return nil
    end
    if type(value) == "table" then
        for i = 2, #value do
            if value[i] ~= value[1] then
                return false
            end
        end
        value = value[1]
    end
    if not find(value, "^%d+$") or #value > LENGTH_DIGITS_MAX then
        return false
    end
    return tonumber(value)
end


-- Body readers are functions (size_max or nil) -> piece, or nil at the end, or nil, error, partial. They call `on_end`
-- once, when the last byte of the message has been read.

local function piece_size(size_max, left)
    if size_max and size_max > 0 then
        return min(size_max, left)
    end
    return left
end


-- No body: at its end from the start.
function _M.no_body()
    return nil
end


-- A body of `length` bytes. Without a size it comes in one piece.
function _M.sized_body(sock, length, on_end)
    local left = length
    return function(size_max)
        if left <= 0 then
            return nil
        end
        local piece, err, partial = sock:receive(piece_size(size_max, left))
        if not piece then
            left = 0
            return nil, err, partial
        end
        left = left - #piece
        if left == 0 then
            on_end()
        end
        return piece
    end
end


-- A body that ends with the connection.
function _M.unsized_body(sock, on_end)
    local ended = false
    return function(size_max)
        if ended then
            return nil
        end
        local in_pieces = size_max and size_max > 0
        local piece, err, partial = sock:receive(in_pieces and size_max or "*a")
        if piece and in_pieces then
            return piece
        end
        ended = true
        if not piece then
            if err ~= "closed" then
                return nil, err, partial
            end
            piece = partial
        end
        on_end()
        if piece == nil or piece == "" then
            return nil
        end
        return piece
    end
end


local function read_chunk_size(line_of)
    local line, err = line_of()
    if not line then
        return nil, err
    end
    local digits = match(line, "^(%x+)[ \t]*$") or match(line, "^(%x+)[ \t]*;")
    if not digits or #digits > CHUNK_DIGITS_MAX then
        return nil, "invalid chunk size"
    end
    return tonumber(digits, 16)
end


-- A chunked body: a piece is a chunk, or a part of one when the chunk is larger than the size. `on_end` gets the
-- trailers.
function _M.chunked_body(sock, line_of, on_end)
    local left, ended = 0, false

    local function failed(err, partial)
        ended = true
        return nil, err, partial
    end

    local function next_chunk()
        local size, err = read_chunk_size(line_of)
        if not size then
            return failed(err)
        end
        if size > 0 then
            left = size
            return true
        end
        local trailers, trailers_err = _M.read_fields(line_of)
        if not trailers then
            return failed(trailers_err)
        end
        ended = true
        on_end(trailers)
        return nil
    end

    return function(size_max)
        if ended then
            return nil
        end
        if left == 0 then
            local more, err = next_chunk()
            if not more then
                return nil, err
            end
        end
        local piece, err, partial = sock:receive(piece_size(size_max, left))
        if not piece then
            return failed(err, partial)
        end
        left = left - #piece
        if left == 0 then
            local mark, mark_err = sock:receive(2)
            if mark ~= "\r\n" then
                return failed(mark and "invalid chunk" or mark_err, piece)
            end
        end
        return piece
    end
end


return _M
