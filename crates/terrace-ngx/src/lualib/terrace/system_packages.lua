-- What the system's package manager, or a global opm, installs is found without configuration, behind the modules in the
-- binary: a package that happens to be installed must not change what a script gets. To have it first, name its folder in
-- lua_package_path.

local ffi = require "ffi"

local package, pcall, error = package, pcall, error
local loaders = package.loaders

local machine = ({ x64 = "x86_64", arm64 = "aarch64" })[ffi.arch] or ffi.arch
local opm = "/usr/local/openresty/site/lualib"

local places = {
    path = "/usr/share/lua/5.1/?.lua;/usr/share/lua/5.1/?/init.lua;" .. opm .. "/?.lua;" .. opm .. "/?/init.lua",
    cpath = "/usr/lib/" .. machine .. "-linux-gnu/lua/5.1/?.so;/usr/lib/lua/5.1/?.so;" .. opm .. "/?.so",
}

-- One of Lua's own searchers, on other places.
local function elsewhere(searcher, field)
    return function(name)
        local own = package[field]
        package[field] = places[field]
        local ok, found = pcall(searcher, name)
        package[field] = own
        if not ok then
            error(found, 0)
        end
        return found
    end
end

-- Of LuaJIT's searchers, the second finds Lua files, the third C modules, the fourth C modules inside others.
local lua, c, c_inside = loaders[2], loaders[3], loaders[4]
loaders[#loaders + 1] = elsewhere(lua, "path")
loaders[#loaders + 1] = elsewhere(c, "cpath")
loaders[#loaders + 1] = elsewhere(c_inside, "cpath")
