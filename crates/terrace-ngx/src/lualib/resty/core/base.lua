-- What other libraries use of resty.core.base: tables with room, buffers to call C functions with, their return codes.

local clear_tab = require "table.clear"
local ffi = require "ffi"
local new_tab = require "table.new"

local ffi_new = ffi.new
local error, select = error, select

local BUFFER_BYTES_DEFAULT = 4096

local _M = {
    version = "0.1.27",
    new_tab = new_tab, clear_tab = clear_tab,
    FFI_OK = 0, FFI_ERROR = -1, FFI_AGAIN = -2, FFI_BUSY = -3, FFI_DONE = -4, FFI_DECLINED = -5, FFI_ABORT = -6,
    FFI_NO_REQ_CTX = -100, FFI_BAD_CONTEXT = -101,
}

local buffer_bytes = BUFFER_BYTES_DEFAULT
local buffer, size_pointer

-- The buffer that is shared, where `size` fits and `must_alloc` does not ask for another.
function _M.get_string_buf(size, must_alloc)
    if size > buffer_bytes or must_alloc then
        return ffi_new("unsigned char[?]", size)
    end
    buffer = buffer or ffi_new("unsigned char[?]", buffer_bytes)
    return buffer
end

function _M.get_string_buf_size()
    return buffer_bytes
end

function _M.set_string_buf_size(size)
    if size <= 0 then
        return
    end
    if buffer then
        buffer = nil
    end
    buffer_bytes = size
end

function _M.get_size_ptr()
    size_pointer = size_pointer or ffi_new("size_t[1]")
    return size_pointer
end

local FREE = 0

-- Keeps a value in a list, and answers its place.
function _M.ref_in_table(list, value)
    if value == nil then
        return -1
    end
    local at = list[FREE]
    if at and at ~= 0 then
        list[FREE] = list[at]
    else
        at = #list + 1
    end
    list[at] = value
    return at
end

function _M.allows_subsystem(...)
    for i = 1, select("#", ...) do
        if select(i, ...) == "http" then
            return
        end
    end
    error("unsupported subsystem: http", 2)
end

function _M.check_subsystem(...)
    return _M.allows_subsystem(...)
end


return _M
