-- The module ngx.process. Workers, and the privileged agent, are threads of one process.

local native = require("terrace.base").native
local type = type

local _M = { version = "0.1.29" }

-- Whether the code is that of init_by_lua, which nginx runs in the master.
local function is_init()
    return native.phase() == 1
end

function _M.type()
    if native.master_pid() == native.worker_pid() then
        return "single"
    elseif is_init() then
        return "master"
    end
    return native.is_agent() == 1 and "privileged agent" or "worker"
end

function _M.get_master_pid()
    return native.master_pid()
end

-- As in nginx, without a master there is no agent.
function _M.enable_privileged_agent(connections)
    if not is_init() then
        return nil, "API disabled in the current context"
    end
    connections = connections or 512
    if type(connections) ~= "number" or connections < 0 then
        return nil, "bad 'connections' argument: number expected and greater than 0"
    end
    native.want_agent()
    return true
end

-- Another worker takes this one's place; without a master the server quits.
function _M.signal_graceful_exit()
    if is_init() then
        local line = "signal_graceful_exit: init_by_lua runs in each worker and can end none"
        native.log(ngx.WARN, line, #line)
        return
    end
    native.worker_leave()
end

return _M
