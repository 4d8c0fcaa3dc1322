-- Translates a view to Lua source. Pure: text in, text out.
--
-- The source is a chunk that returns a fresh function (context, template, ___, escape, output, include, concat) ->
-- layout, blocks. It appends the rendered pieces to `___` and counts them in `___n`. Each statement stands on the line
-- that its tag has in the view, so that an error names the view's line.
--
-- A tag is one of {{ }} {* *} {% %} {( )} {[ ]} {# #} {-name-}; an opening tag without its end is plain text. Blanks
-- right before code and block tags are dropped, and so is one line break right after code, comment and block tags and
-- right before the closing tag of a block. The raw blocks lose only the line breaks that follow their tags.

local byte = string.byte
local concat = table.concat
local error = error
local find = string.find
local format = string.format
local gsub = string.gsub
local match = string.match
local sub = string.sub

local BACKSLASH = 92
local NEWLINE = 10
local RETURN = 13
local SPACE = 32
local TAB = 9

-- Blocks may hold blocks, down to this depth.
local DEPTH_MAX = 64

local _M = { _VERSION = "0.1.0" }

-- The parts of the source around the statements; the helpers are made only for views that can use them.
local PROLOGUE = "return function(context,template,___,___escape,___output,___include,___concat)"
    .. "local ___n,blocks,layout=0,context.blocks or {};"
local INCLUDE = "local function include(v,c) return ___include(v,c or context) end;"
local ECHO = "local function echo(...) for i=1,select('#',...) do "
    .. "___n=___n+1;___[___n]=___output((select(i,...))) end end;"
local EPILOGUE = " return layout,blocks end"

local CLOSERS = {
    ["{"] = "}}",
    ["*"] = "*}",
    ["%"] = "%}",
    ["("] = ")}",
    ["["] = "]}",
    ["#"] = "#}",
}


-- Code that may end in a comment needs a line break behind it.
local function closed(code)
    if find(code, "--", 1, true) then
        return code .. "\n"
    end
    return code
end


local function visited(state, content, kind, name)
    local visitors = state.visitors
    for i = 1, #visitors do
        content = visitors[i](content, kind, name)
    end
    return content
end


local function emit(state, statement)
    state.code[#state.code + 1] = statement
end


local function emit_value(state, expression)
    emit(state, "___n=___n+1;___[___n]=" .. expression .. ";")
end


-- A quoted string keeps its line breaks, so the lines stay in step.
local function emit_text(state, text)
    if text == "" then
        return
    end
    text = visited(state, text)
    if text ~= "" then
        emit_value(state, (gsub(gsub(format("%q", text), "\r", "\\r"), "%z", "\\0")))
    end
end


-- Where text before a code or block tag ends: before the blanks that precede the tag.
local function trimmed_end(view, from, at)
    local i = at - 1
    while i >= from do
        local char = byte(view, i)
        if char ~= SPACE and char ~= TAB then
            break
        end
        i = i - 1
    end
    return i
end


-- The position after a line break at `at`, if there is one, and the line break for the source.
local function after_newline(view, at)
    if byte(view, at) == RETURN and byte(view, at + 1) == NEWLINE then
        return at + 2, "\n"
    end
    if byte(view, at) == NEWLINE then
        return at + 1, "\n"
    end
    return at, ""
end


-- The end of a block's inside without the line break before the closing tag.
local function before_newline(view, from, last)
    if last < from or byte(view, last) ~= NEWLINE then
        return last, ""
    end
    if last > from and byte(view, last - 1) == RETURN then
        return last - 2, "\n"
    end
    return last - 1, "\n"
end


local handlers = {}

handlers["{"] = function(state, content)
    emit_value(state, "___escape(" .. closed(content) .. ")")
end

handlers["*"] = function(state, content)
    emit_value(state, "___output(" .. closed(content) .. ")")
end

handlers["%"] = function(state, content)
    emit(state, closed(content) .. " ")
end

handlers["("] = function(state, content)
    local file, context = match(content, "^([^,]*),(.*)$")
    local name = match(file or content, "^%s*(.-)%s*$")
    emit_value(state, format("___output(include(%q,%s))", name, context and closed(context) or "nil"))
end

handlers["["] = function(state, content)
    emit_value(state, "___output(include(" .. closed(content) .. "))")
end

handlers["#"] = function(state, content)
    emit(state, gsub(content, "[^\n]+", ""))
end


local translate_range

-- {-name-} ... {-name-}: the inside is rendered to blocks[name]; raw and verbatim stand in the output as they are.
-- Returns where to go on, or nil when this is no block.
local function translate_block(state, view, from, at)
    local name, open_end = match(view, "^{%-([^\n{}]-)%-}()", at)
    if not name or name == "" then
        return nil
    end
    local inner_from, opened = after_newline(view, open_end)
    local close, close_end = find(view, "{-" .. name .. "-}", inner_from, true)
    if not close then
        return nil
    end
    local next_at, closed_by = after_newline(view, close_end + 1)
    if name == "raw" or name == "verbatim" then
        emit_text(state, sub(view, from, at - 1))
        emit(state, opened)
        emit_text(state, sub(view, inner_from, close - 1))
        emit(state, closed_by)
        return next_at
    end
    emit_text(state, sub(view, from, trimmed_end(view, from, at)))
    emit(state, "do local ___,___n={},0;" .. (state.uses_echo and ECHO or "") .. opened)
    local inner_to, dropped = before_newline(view, inner_from, close - 1)
    local inner = visited(state, sub(view, inner_from, inner_to), "-", name)
    translate_range(state, inner)
    emit(state, dropped .. format("blocks[%q]=___concat(___) end;", name) .. closed_by)
    return next_at
end


-- Translates one tag of the given kind. Returns where to go on, or nil when it has no end.
local function translate_tag(state, view, from, at, kind)
    local close, close_end = find(view, CLOSERS[kind], at + 2, true)
    if not close then
        return nil
    end
    local text_to = kind == "%" and trimmed_end(view, from, at) or at - 1
    emit_text(state, sub(view, from, text_to))
    local content = sub(view, at + 2, close - 1)
    if kind ~= "#" then
        content = visited(state, content, kind)
    end
    handlers[kind](state, content)
    if kind ~= "%" and kind ~= "#" then
        return close_end + 1
    end
    local next_at, newline = after_newline(view, close_end + 1)
    emit(state, newline)
    return next_at
end


-- Handles backslashes before a tag: one makes the tag text, of two one is output and the tag stands.
-- Returns the start of pending text, and whether the tag is text.
local function unescape(state, view, from, at)
    if at - 1 < from or byte(view, at - 1) ~= BACKSLASH then
        return from, false
    end
    if at - 2 >= from and byte(view, at - 2) == BACKSLASH then
        emit_text(state, sub(view, from, at - 2))
        return at, false
    end
    emit_text(state, sub(view, from, at - 2))
    return at, true
end


function translate_range(state, view)
    state.depth = state.depth + 1
    if state.depth > DEPTH_MAX then
        error("template blocks are nested too deeply", 0)
    end
    local from, search = 1, 1
    while true do
        local at = find(view, "{[{*%%(%[#%-]", search)
        if not at then
            break
        end
        local kind = sub(view, at + 1, at + 1)
        local literal
        from, literal = unescape(state, view, from, at)
        local next_at
        if not literal then
            if kind == "-" then
                next_at = translate_block(state, view, from, at)
            else
                next_at = translate_tag(state, view, from, at, kind)
            end
        end
        if next_at then
            from, search = next_at, next_at
        else
            search = at + (literal and 2 or 1)
        end
    end
    emit_text(state, sub(view, from))
    state.depth = state.depth - 1
end


-- The Lua source of a view. `visitors` is a list of functions (content, kind, name) -> content.
function _M.translate(view, visitors)
    local uses_echo = find(view, "echo", 1, true) ~= nil
    local uses_include = find(view, "include", 1, true) ~= nil or find(view, "{[(%[]") ~= nil
    local state = { code = {}, visitors = visitors, depth = 0, uses_echo = uses_echo }
    emit(state, PROLOGUE .. (uses_include and INCLUDE or "") .. (uses_echo and ECHO or ""))
    translate_range(state, view)
    emit(state, EPILOGUE)
    return concat(state.code)
end


return _M
