-- What OpenResty's fork adds, and what is particular to this implementation.
local cjson = require "cjson"
local safe = require "cjson.safe"
local ffi = require "ffi"

local function eq(got, want, what)
    if got ~= want then
        error(string.format("%s: got %s, want %s", what or "?", tostring(got), tostring(want)), 2)
    end
end

-- empty tables
local json = cjson.new()
eq(json.encode({}), "{}")
eq(json.encode({ cjson.empty_array, setmetatable({}, cjson.empty_array_mt) }), "[[],[]]")
eq(json.encode(setmetatable({ a = 1 }, cjson.empty_array_mt)), '[]', "nothing at 1")
eq(json.encode(setmetatable({ 1, 2 }, cjson.empty_array_mt)), "[1,2]")
eq(json.encode_empty_table_as_object(false), false)
eq(json.encode({ {} }), "[[]]")
eq(json.encode_empty_table_as_object("on"), true)
eq(json.empty_array_mt, cjson.empty_array_mt, "one metatable for all instances")

-- arrays by metatable
local t = setmetatable({ "one", "two", nil, "three", foo = "bar" }, cjson.array_mt)
eq(json.encode(t), '["one","two",null,"three"]')
eq(json.encode(setmetatable({}, cjson.array_mt)), "[]")
eq(json.decode_array_with_array_mt(true), true)
eq(getmetatable(json.decode("[1]")), cjson.array_mt)
eq(getmetatable(json.decode("{}")), nil)
eq(json.encode(json.decode('{"a":[]}')), '{"a":[]}')
eq(getmetatable(cjson.decode("[1]")), nil)

-- slashes, precision, comments
eq(json.encode_escape_forward_slash(false), false)
eq(json.encode("http://a/b/c/d/e"), '"http://a/b/c/d/e"')
eq(cjson.encode("/"), '"\\/"')
eq(json.encode_number_precision(16), 16)
eq(json.encode(0.1), "0.1")
eq(json.encode(1 / 3), "0.3333333333333333")
eq(json.encode(1e15), "1000000000000000")
assert(not pcall(json.encode_number_precision, 17))
eq(json.decode_allow_comment(true), true)
eq(json.decode("// one\n[1, /* two */ 2 // three\n, 3] /**/ // four")[3], 3)
eq(select(2, pcall(json.decode, "[1 /* ")),
    "Expected comma or array end but found unclosed multi-line comment at character 7")
eq(select(2, pcall(json.decode, "[1 / 2]")), "Expected comma or array end but found invalid token at character 4")

-- numbers without JSON
json = cjson.new()
json.encode_invalid_numbers(true)
eq(json.encode({ math.huge, -math.huge, 0 / 0 }), "[Infinity,-Infinity,NaN]")
eq(select(2, safe.encode(0 / 0)), "Cannot serialise number: must not be NaN or Infinity")

-- types without JSON
eq(select(2, safe.encode({ ffi.new("int") })), "Cannot serialise cdata: type not supported")
json = cjson.new()
eq(json.encode_skip_unsupported_value_types(true), true)
eq(json.encode({ key = "val", f = print }), '{"key":"val"}')
eq(json.encode({ print, 1, print, 2, print }), "[1,2]")
eq(json.encode(print), "")

-- indentation
json = cjson.new()
eq(json.encode_indent("  "), "  ")
eq(json.encode({ a = { 1, { b = {} } } }), '{\n  "a": [\n    1,\n    {\n      "b": {}\n    }\n  ]\n}')
eq(json.encode_indent(""), "")
eq(json.encode({ a = { 1 } }), '{"a":[1]}')

-- metamethods
local proxy = setmetatable({}, { __len = function() return 2 end, __index = function(_, i) return i * 10 end })
eq(cjson.encode(proxy), "[10,20]")
eq(cjson.encode(setmetatable({}, { __len = function() return 1 end, __index = function() return cjson.encode({ 1 }) end })),
    '["[1]"]', "a metamethod may encode")
local failing = setmetatable({}, { __len = function() error({ code = 7 }) end })
for _ = 1, 3 do
    local _, err = pcall(cjson.encode, { "before", failing })
    eq(err.code, 7, "the error value of a metamethod")
    local value, same = safe.encode(failing)
    eq(value, nil)
    eq(same.code, 7)
    eq(cjson.encode({ 1 }), "[1]")
end
local changing
json = cjson.new()
json.encode_indent("    ")
changing = setmetatable({}, { __len = function() json.encode_indent(("x"):rep(10000)); return 0 end })
eq(json.encode({ changing, 1 }), "[\n    [],\n    1\n]", "settings are taken at the start")

-- finalizers that decode and encode while a document is being built
do
    local calls = 0
    local text = cjson.encode({ "e\"scaped", { 1, 2, { a = "b\nc" } } })
    for _ = 1, 2000 do
        ffi.gc(ffi.new("int[1]"), function()
            calls = calls + 1
            assert(cjson.encode(cjson.decode(text)) == text)
        end)
    end
    local list = {}
    for i = 1, 500 do list[i] = "key\\n" .. i .. '\\"' end
    local source = '["' .. table.concat(list, '","') .. '"]'
    for round = 1, 200 do
        local value = cjson.decode((source:gsub("key", "key" .. round)))
        eq(value[500], "key" .. round .. "\n500\"")
    end
    collectgarbage()
    assert(calls > 0)
end
