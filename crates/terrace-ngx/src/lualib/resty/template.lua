-- Templates under the name and interface that scripts know: a view is translated to Lua once, cached, and then run.
--
-- Translation is in terrace.template_parser. This file owns the rest: finding a view's text, the cache, the rendering
-- and the view objects. Each rendering has an environment of its own, so that a template that waits (for a subrequest,
-- say) never sees the context of another request.

local parser = require "terrace.template_parser"

local byte = string.byte
local concat = table.concat
local error = error
local find = string.find
local getmetatable = getmetatable
local globals = _G
local gsub = string.gsub
local io_open = io.open
local loadstring = loadstring
local new_tab = require "table.new"
local next = next
local ngx = ngx
local null = ngx and ngx.null
local pcall = pcall
local rawget = rawget
local select = select
local setfenv = setfenv
local setmetatable = setmetatable
local string_dump = string.dump
local sub = string.sub
local tostring = tostring
local type = type

local SLASH = 47
-- A view longer than this, or holding a line break or a tag, is the template itself and not a file's name.
local PATH_BYTES_MAX = 4096
-- Inline views can be made up without end; the cache starts anew when it holds this many.
local CACHE_ENTRIES_MAX = 10000
local OUTPUT_PARTS_EXPECTED = 32

local MARKUP_REFERENCES = {
    ["&"] = "&amp;",
    ["<"] = "&lt;",
    [">"] = "&gt;",
    ['"'] = "&quot;",
    ["'"] = "&#39;",
    ["/"] = "&#47;",
}
local MARKUP_AND_BRACE_REFERENCES = {
    ["{"] = "&#123;",
    ["}"] = "&#125;",
}
for char, entity in next, MARKUP_REFERENCES do
    MARKUP_AND_BRACE_REFERENCES[char] = entity
end

-- The phases in which a view can be fetched by subrequest.
local SUBREQUEST_PHASES = { rewrite = true, server_rewrite = true, access = true, content = true }


-- The text of a value: nil and ngx.null are empty, functions are called for theirs.
local function output(value)
    local kind = type(value)
    if kind == "string" then
        return value
    end
    if value == nil or value == null then
        return ""
    end
    if kind == "function" then
        return output(value())
    end
    return tostring(value)
end


-- The text of a value, a string's with the HTML characters replaced. `code` also replaces braces.
local function escape(value, code)
    if type(value) ~= "string" then
        return output(value)
    end
    if code then
        return (gsub(value, "[\"'<>&/{}]", MARKUP_AND_BRACE_REFERENCES))
    end
    if not find(value, "[\"'<>&/]") then
        return value
    end
    return (gsub(value, "[\"'<>&/]", MARKUP_REFERENCES))
end


-- On Terrace the work is native.
local has_native, native_html = pcall(require, "terrace.html")
local escape_text = has_native and native_html.escape or escape

local function escape_one(value)
    if type(value) ~= "string" then
        return output(value)
    end
    return escape_text(value)
end


local function nonempty(value)
    if value ~= "" then
        return value
    end
    return nil
end


-- Where nginx variables say that views live. Raises in phases without a request.
local function places_of_request(location, root)
    local var = ngx.var
    if location == nil then
        location = nonempty(var.template_location)
    end
    if root == nil then
        root = nonempty(var.template_root) or nonempty(var.document_root)
    end
    return location, root
end


local function join(directory, name)
    if byte(directory, -1) == SLASH then
        directory = sub(directory, 1, -2)
    end
    if byte(name, 1) == SLASH then
        name = sub(name, 2)
    end
    return directory .. "/" .. name
end


local function is_inline(view)
    return #view > PATH_BYTES_MAX or find(view, "[\n%z]") ~= nil or find(view, "{[{*%%(%[#%-]") ~= nil
end


-- Where an instance's views live: a location for subrequests and a directory, both optional. The instance's own
-- settings come first, then the request's variables.
local function places_of(template)
    local location, root = template.location, template.root
    if ngx and (location == nil or root == nil) then
        local ok, request_location, request_root = pcall(places_of_request, location, root)
        if ok then
            location, root = request_location, request_root
        end
    end
    return nonempty(location), nonempty(root)
end


local function read_subrequest(location, view)
    if not ngx or not SUBREQUEST_PHASES[ngx.get_phase()] then
        return nil
    end
    local response = ngx.location.capture(join(location, view))
    if response.status ~= 200 then
        return nil
    end
    return response.body
end


local function read_file(path)
    local file, err = io_open(path, "rb")
    if not file then
        return nil, err
    end
    local text, read_err = file:read("*a")
    file:close()
    return text, read_err
end


-- The text of a view: its subrequest's body, else its file's content, else the view itself. With `plain` true the view
-- is the text; with `plain` false it is a file's name, and that the file cannot be read is an error.
local function load_view(template, view, plain)
    if plain == true or (plain == nil and is_inline(view)) then
        return view
    end
    local location, root = places_of(template)
    if location then
        local text = read_subrequest(location, view)
        if text then
            return text
        end
    end
    local text, err = read_file(root and join(root, view) or view)
    if text then
        return text
    end
    if plain == false then
        error(err, 0)
    end
    return view
end


-- Names that a template does not define are looked up in its context, then in the template table, then globally. A
-- false counts as undefined, as it always has in these templates.
local function lookup(environment, name)
    return rawget(environment, "context")[name] or rawget(environment, "template")[name] or globals[name]
end

local environment_mt = { __index = lookup }


-- The function that renders a translated view: context in, text out.
local function renderer(template, chunk)
    local function include(view, context)
        return template.compile_unsafe(view)(context)
    end

    return function(context)
        context = context or {}
        local environment = setmetatable({ context = context, template = template }, environment_mt)
        local body = setfenv(chunk(), environment)
        local parts = new_tab(OUTPUT_PARTS_EXPECTED, 0)
        local layout, blocks = body(context, template, parts, escape_one, output, include, concat)
        local text = concat(parts)
        if layout == nil or layout == "" then
            return text
        end
        context.view = text
        context.blocks = context.blocks or blocks
        return include(layout, context)
    end
end


local function chunk_name(view)
    return is_inline(view) and "=template" or "=" .. view
end


-- Translates a view and loads the outcome. Raises what is wrong with it.
local function load_chunk(template, view, plain)
    local chunk, err = loadstring(template.parse_unsafe(view, plain), chunk_name(view))
    if not chunk then
        error(err, 0)
    end
    return chunk
end


local function subtable(parent, key)
    local child = parent[key]
    if not child then
        child = {}
        parent[key] = child
    end
    return child
end


-- Keys in a cache that no view can have: plain views that look like files' names, and files.
local PLAIN, FILES = {}, {}

-- The table and the key under which a view's rendering function is cached; nil when there is no table for it and none
-- may be made. Two servers may know different files by one name, so a file is cached for the places where it was
-- sought.
local function cache_slot(template, view, cache_key, plain, may_grow)
    local cache = template.cache
    if cache_key then
        return cache, cache_key
    elseif plain == true then
        return subtable(cache, PLAIN), view
    elseif cache[view] then
        return cache, view
    end
    local files = subtable(cache, FILES)
    if not files[view] then
        if is_inline(view) and plain == nil then
            return cache, view
        elseif not may_grow then
            return nil
        end
    end
    local location, root = places_of(template)
    return subtable(subtable(files, view), location or ""), root or ""
end


local function install_compiler(template)
    local caching = true
    local visitors = {}
    local cached, cache_seen = 0, nil

    local function remember(slots, key, render)
        slots[key] = render
        if template.cache ~= cache_seen then
            cache_seen, cached = template.cache, 0
        end
        cached = cached + 1
        if cached >= CACHE_ENTRIES_MAX then
            template.cache = {}
        end
    end

    -- Switches the cache on or off when given a boolean. Returns whether it is on.
    function template.caching(enable)
        if enable ~= nil then
            caching = enable == true
        end
        return caching
    end

    -- Adds a function (content, tag type, block name) -> content that is called for every piece of a view.
    function template.visit(visitor)
        visitors[#visitors + 1] = visitor
    end

    -- The Lua source of a view; a precompiled view is returned as it is.
    function template.parse_unsafe(view, plain)
        local text = view
        if plain ~= true then
            local err
            text, err = template.load(view, plain)
            if type(text) ~= "string" then
                error(err or "the view could not be loaded", 0)
            end
            if byte(text, 1) == 27 then
                return text
            end
        end
        return parser.translate(text, visitors)
    end

    -- The rendering function of a view and whether it came from the cache. The key "no-cache" avoids the cache.
    function template.compile_unsafe(view, cache_key, plain)
        if type(view) ~= "string" then
            error("a view must be a string", 0)
        end
        if cache_key == "no-cache" then
            return renderer(template, load_chunk(template, view, plain)), false
        end
        local slots, key = cache_slot(template, view, cache_key, plain, caching)
        local render = slots and slots[key]
        if render then
            return render, true
        end
        render = renderer(template, load_chunk(template, view, plain))
        if caching then
            remember(slots, key, render)
        end
        return render, false
    end

    -- The bytecode of a view; it can be kept as a file and used as a view. Written to `path` when that is given.
    function template.precompile(view, path, strip, plain)
        local bytecode = string_dump(load_chunk(template, view, plain), strip ~= false)
        if path then
            local file, err = io_open(path, "wb")
            if not file then
                error(err, 0)
            end
            file:write(bytecode)
            file:close()
        end
        return bytecode
    end
end


local function install_renderers(template)
    template.parse = template.parse_unsafe
    template.compile = template.compile_unsafe

    function template.load(view, plain)
        return load_view(template, view, plain)
    end

    local function process(view, context, cache_key, plain)
        return (template.compile_unsafe(view, cache_key, plain)(context))
    end

    -- The text of a view rendered with a context.
    template.process = process

    -- Renders and hands the text to template.print.
    function template.render(view, context, cache_key, plain)
        return template.print(process(view, context, cache_key, plain))
    end

    for name, plain in next, { string = true, file = false } do
        template["load_" .. name] = function(view)
            return template.load(view, plain)
        end
        template["parse_" .. name] = function(view)
            return template.parse(view, plain)
        end
        template["compile_" .. name] = function(view, cache_key)
            return template.compile(view, cache_key, plain)
        end
        template["precompile_" .. name] = function(view, path, strip)
            return template.precompile(view, path, strip, plain)
        end
        template["process_" .. name] = function(view, context, cache_key)
            return template.process(view, context, cache_key, plain)
        end
        template["render_" .. name] = function(view, context, cache_key)
            return template.render(view, context, cache_key, plain)
        end
    end
end


-- Renders a view object's view, then the layout around it, and returns the text. The layout is another view object,
-- which is its own context, or a view's name or text, which shares the context.
local function process_view(template, view, layout, context)
    if not layout then
        return template.compile_unsafe(view)(context)
    end
    local target = type(layout) == "table" and layout or context
    local blocks = context.blocks or target.blocks or {}
    context.blocks, target.blocks = blocks, blocks
    target.view = template.compile_unsafe(view)(context)
    if target == layout then
        return layout:process()
    end
    return template.compile_unsafe(layout)(context)
end


-- A view object: a table that is its own context, with render and process.
local function new_view(template, view, layout)
    local object = {}

    function object.process(self, context)
        return process_view(template, view, layout, context or self or object)
    end

    function object.render(self, context)
        return template.print(process_view(template, view, layout, context or self or object))
    end

    return setmetatable(object, {
        __tostring = function(self)
            return process_view(template, view, layout, self)
        end,
    })
end


local function results_or_error(ok, ...)
    if ok then
        return ...
    end
    return nil, (...)
end


local function protected(raising)
    return function(...)
        return results_or_error(pcall(raising, ...))
    end
end


local PROTECTED = { "caching", "visit", "load", "parse", "compile", "precompile", "process", "render" }

local function make_safe_view(object)
    object.process = protected(object.process)
    object.render = protected(object.render)
    local mt = getmetatable(object)
    local raising = mt.__tostring
    mt.__tostring = function(self)
        local ok, text = pcall(raising, self)
        return ok and text or ""
    end
    return object
end


local function make_safe(template)
    for i = 1, #PROTECTED do
        local name = PROTECTED[i]
        template[name] = protected(template[name])
        for _, suffix in next, { "_string", "_file" } do
            if template[name .. suffix] then
                template[name .. suffix] = protected(template[name .. suffix])
            end
        end
    end
end


-- A template instance with a cache of its own, in the given table when there is one.
local function new_instance(options, safe)
    local template = options or {}
    template._VERSION = "0.1.0"
    template.cache = {}
    template.escape = escape
    template.output = output
    template.print = template.print or ngx and ngx.print or function(text)
        return io.write(text)
    end
    install_compiler(template)
    install_renderers(template)

    -- new(): a fresh instance. new(table): an instance in that table. new(boolean): a safe or a raising instance.
    -- new(view, layout): a view object.
    function template.new(...)
        local view, layout = ...
        local kind = type(view)
        if select("#", ...) == 0 or view == nil then
            return new_instance(nil, safe)
        elseif kind == "table" then
            return new_instance(view, safe)
        elseif kind == "boolean" then
            return new_instance(nil, view)
        end
        local object = new_view(template, view, layout)
        return safe and make_safe_view(object) or object
    end

    if safe then
        make_safe(template)
    end
    return template
end


return new_instance()
