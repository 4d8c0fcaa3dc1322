-- Runs a command and collects what it writes.

local pipe = require "ngx.pipe"

local kill, spawn, wait = ngx.thread.kill, ngx.thread.spawn, ngx.thread.wait

local OUTPUT_BYTES_MAX_DEFAULT = 128 * 1024
local SIGKILL = 9

local _M = { version = "0.03" }

-- All that comes, up to `max` bytes; then also an error.
local function collect(process, read, max)
    local parts, size = {}, 0
    while true do
        local data, err, partial = process[read](process, max - size + 1)
        data = data or partial
        if data and data ~= "" then
            size = size + #data
            parts[#parts + 1] = data
        end
        local text = table.concat(parts)
        if size > max then
            return text:sub(1, max), "too much data"
        elseif err then
            return text, err ~= "closed" and err or nil
        end
    end
end

local function feed(process, stdin)
    if stdin and stdin ~= "" then
        local sent, err = process:write(stdin)
        -- A command need not read all of it.
        if not sent and err ~= "closed" then
            return err
        end
    end
    process:shutdown("stdin")
end

-- Whether the command ended well, its output, its errors, "exit" or "signal", and the status. Where it could not be run
-- to its end: nil, what it wrote, and why.
function _M.run(command, stdin, timeout, max_size)
    local process, err = pipe.spawn(command)
    if not process then
        return nil, nil, nil, "failed to spawn: " .. err
    end
    if timeout then
        process:set_timeouts(timeout, timeout, timeout, timeout)
    end
    local max = max_size or OUTPUT_BYTES_MAX_DEFAULT
    local writer = spawn(feed, process, stdin)
    local reader = spawn(collect, process, "stderr_read_any", max)
    local stdout, out_err = collect(process, "stdout_read_any", max)
    local _, stderr, err_err = wait(reader)
    local ok, reason, status
    if out_err or err_err then
        reason = out_err and "failed to read stdout: " .. out_err or "failed to read stderr: " .. err_err
    else
        ok, reason, status = process:wait()
        if ok == nil then
            reason = "failed to wait for process: " .. reason
        end
    end
    kill(writer)
    if ok == nil then
        process:kill(SIGKILL)
        return nil, stdout, stderr, reason
    end
    return ok, stdout, stderr, reason, status
end

return _M
