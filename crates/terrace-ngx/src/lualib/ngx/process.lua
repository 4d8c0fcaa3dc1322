-- The module ngx.process. Workers are threads of one process, beside which there is no privileged agent.

local native = require("terrace.base").native
local type = type

local _M = { version = "0.1.29" }

local types = { worker = "worker", master = "master", single = "single" }

function _M.type()
    if native.phase() == 1 then
        return types.master
    end
    return native.master_pid() == native.worker_pid() and types.single or types.worker
end

function _M.get_master_pid()
    return native.master_pid()
end

function _M.enable_privileged_agent(connections)
    if native.phase() ~= 1 then
        return nil, "API disabled in the current context"
    end
    connections = connections or 512
    if type(connections) ~= "number" or connections < 0 then
        return nil, "bad 'connections' argument: number expected and greater than 0"
    end
    return nil, "there is no privileged agent"
end

-- Only a privileged agent has a use for it.
function _M.signal_graceful_exit()
    local line = "signal_graceful_exit: a worker cannot end alone"
    native.log(ngx.WARN, line, #line)
end

return _M
