-- ngx.worker and ngx.config.

local base = require "terrace.base"

local native, take, refuse, text = base.native, base.take, base.refuse, base.text

ngx.worker = {}

function ngx.worker.pid()
    return native.worker_pid()
end

-- Workers are threads of one process.
function ngx.worker.pids()
    return { native.worker_pid() }
end

function ngx.worker.id()
    local id = native.worker_id()
    if id >= 0 and native.phase() ~= 1 then
        return id
    end
    return nil
end

function ngx.worker.count()
    local count = native.worker_count()
    if count < 0 then
        refuse(count)
    end
    return count
end

function ngx.worker.exiting()
    return native.worker_exiting() == 1
end

ngx.config = {
    subsystem = "http",
    debug = false,
    nginx_version = 1027001,
    ngx_lua_version = 10028,
    is_console = false,
}

function ngx.config.prefix()
    if native.config_prefix(text) == 0 then
        return take()
    end
end

function ngx.config.nginx_configure()
    return " --with-compat --with-threads --with-pcre-jit --with-http_realip_module --with-http_stub_status_module"
        .. " --with-http_sub_module --with-http_gzip_static_module --add-module=ndk_http_module"
        .. " --add-module=ngx_http_lua_module"
end
