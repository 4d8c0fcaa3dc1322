-- What every cjson of the 2.1 line does: values, limits and texts. Holds for upstream's C module too.
local cjson = require "cjson"
local safe = require "cjson.safe"

local function eq(got, want, what)
    if got ~= want then
        error(string.format("%s: got %s, want %s", what or "?", tostring(got), tostring(want)), 2)
    end
end

local function decode_error(text, want)
    local value, err = safe.decode(text)
    eq(value, nil, text)
    eq(err, want, text)
    local ok, raised = pcall(cjson.decode, text)
    eq(ok, false, text)
    eq(raised, want, text)
end

local function encode_error(value, want)
    local text, err = safe.encode(value)
    eq(text, nil, want)
    eq(err, want)
    local ok, raised = pcall(cjson.encode, value)
    eq(ok, false, want)
    eq(raised, want)
end

eq(cjson._NAME, "cjson")
assert(cjson._VERSION:find("^2%.1%.0"))
eq(type(cjson.null), "userdata")

-- values
eq(cjson.decode("1"), 1)
eq(cjson.decode(" [ ] ")[1], nil)
eq(cjson.decode("true"), true)
eq(cjson.decode("false"), false)
eq(cjson.decode("null"), cjson.null)
eq(cjson.decode('"a\\u00e9\\ud83d\\ude00\\n\\/\\""'), 'a\195\169\240\159\152\128\n/"')
eq(cjson.decode('"\\u0000x"'), "\0x")
eq(cjson.decode('"0123456789abcdef0123456789\\tz"'), "0123456789abcdef0123456789\tz")
eq(cjson.decode('{"a":{"b":[1,2,{"c":"d"}]}}').a.b[3].c, "d")
eq(cjson.decode('{"a":1,"a":2}').a, 2, "the last of equal keys")
eq(cjson.decode("12\0ignored"), 12, "a zero byte ends the text")
eq(cjson.decode(17), 17, "numbers are texts")
for text, value in pairs {
    ["0"] = 0, ["-1.5e3"] = -1500, ["0.1"] = 0.1, ["1e22"] = 1e22, ["123456789012345678"] = 123456789012345678,
    ["12345678901234567890123"] = 12345678901234567890123, ["2.2250738585072014e-308"] = 2.2250738585072014e-308,
    ["5e-324"] = 5e-324, ["1e400"] = math.huge, ["0.30000000000000004"] = 0.1 + 0.2, ["010"] = 10, ["1."] = 1,
    ["0x1F"] = 31, ["+5"] = 5, ["-inf"] = -math.huge, ["Infinity"] = math.huge,
} do
    eq(cjson.decode(text), value, text)
end
local nan = cjson.decode("nan")
assert(nan ~= nan)

eq(cjson.encode("a/b\"\\\b\f\n\r\t\1\127é"), '"a\\/b\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u007fé"')
eq(cjson.encode({ 1, "x", true, cjson.null, { 2 }, {} }), '[1,"x",true,null,[2],{}]')
eq(cjson.encode({ [1] = 1, [4] = 4 }), "[1,null,null,4]")
eq(cjson.encode({ [2.5] = 1 }), '{"2.5":1}')
eq(cjson.encode({ a = { b = { 1, 2 } } }), '{"a":{"b":[1,2]}}')
eq(cjson.encode(nil), "null")
for text, value in pairs {
    ["0"] = 0, ["-0"] = -0.0, ["19.99"] = 19.99, ["0.1"] = 0.1, ["-0.0001"] = -0.0001, ["1e-05"] = 0.00001,
    ["1e+14"] = 1e14, ["99999999999999"] = 99999999999999, ["0.33333333333333"] = 1 / 3, ["1e+300"] = 1e300,
    ["0.3"] = 0.1 + 0.2, ["123456.789"] = 123456.789, ["1"] = 0.99999999999999999, ["2147483648"] = 2 ^ 31,
} do
    eq(cjson.encode(value), text, text)
end

-- texts of errors
decode_error("", "Expected value but found T_END at character 1")
decode_error("x", "Expected value but found invalid token at character 1")
decode_error("[1,]", "Expected value but found T_ARR_END at character 4")
decode_error("[1 2]", "Expected comma or array end but found T_NUMBER at character 4")
decode_error('{"a" 1}', "Expected colon but found T_NUMBER at character 6")
decode_error('{"a":1 "b"}', "Expected comma or object end but found T_STRING at character 8")
decode_error("{1:2}", "Expected object key string but found T_NUMBER at character 2")
decode_error('"abc', "Expected value but found unexpected end of string at character 5")
decode_error('"a\\x"', "Expected value but found invalid escape code at character 3")
decode_error('"\\ud800"', "Expected value but found invalid unicode escape code at character 2")
decode_error('"\\udc00\\ud800"', "Expected value but found invalid unicode escape code at character 2")
decode_error("1 2", "Expected the end but found T_NUMBER at character 3")
decode_error("-", "Expected value but found invalid number at character 1")
decode_error("[1,/**/2]", "Expected value but found invalid token at character 4")
decode_error("\0{", "JSON parser does not support UTF-16 or UTF-32")
encode_error(print, "Cannot serialise function: type not supported")
encode_error({ { a = print } }, "Cannot serialise function: type not supported")
encode_error({ [true] = 1 }, "Cannot serialise boolean: table key must be a number or string")
encode_error({ [1] = 1, [1000] = 2 }, "Cannot serialise table: excessively sparse array")
-- upstream shortens the last word
assert(select(2, safe.encode({ 0 / 0 })):find("^Cannot serialise number: must not be NaN or Inf"))
assert(select(2, pcall(cjson.encode, math.huge)):find("^Cannot serialise number: must not be NaN or Inf"))
eq(select(2, safe.decode(nil)), "bad argument #1 to '?' (string expected, got nil)")
eq(select(2, safe.decode({})), "bad argument #1 to '?' (string expected, got table)")
for _, name in ipairs { "encode", "decode" } do
    for _, module in ipairs { cjson, safe } do
        local ok, err = pcall(module[name], 1, 2)
        assert(not ok and err:find("expected 1 argument", 1, true), err)
    end
end

-- an error has the caller's place when Lua code calls directly
local ok, err = pcall(function() return cjson.decode("x") .. "" end)
assert(not ok and err:find("^.*common%.lua:%d+: Expected value but found invalid token at character 1$"), err)

-- nesting
decode_error(("["):rep(1001), "Found too many nested data structures (1001) at character 1001")
local deep = {}
for _ = 1, 1000 do deep = { deep } end
encode_error(deep, "Cannot serialise, excessive nesting (1001)")
local fresh = cjson.new()
eq(fresh.decode_max_depth(3), 3)
eq(fresh.decode_max_depth(), 3)
eq(fresh.decode("[[[1]]]")[1][1][1], 1)
assert(not pcall(fresh.decode, "[[[[1]]]]"))
eq(fresh.encode_max_depth(1), 1)
eq(fresh.encode({ 1 }), "[1]")
assert(not pcall(fresh.encode, { {} }))
eq(cjson.decode_max_depth(), 1000, "instances are independent")

-- settings
fresh = cjson.new()
eq(fresh.encode_number_precision(3), 3)
eq(fresh.encode({ 1234.5, 0.1, 12 }), "[1.23e+03,0.1,12]")
local convert, ratio, keep = fresh.encode_sparse_array(true, 2, 3)
eq(convert, true); eq(ratio, 2); eq(keep, 3)
eq(fresh.encode({ [100] = 1 }), '{"100":1}')
eq(fresh.encode_invalid_numbers("null"), "null")
eq(fresh.encode({ 0 / 0, math.huge }), "[null,null]")
eq(fresh.encode_invalid_numbers(true), true)
eq(fresh.decode_invalid_numbers(false), false)
for _, text in ipairs { "0x1", "01", "-inf", "-nan" } do
    local _, reason = pcall(fresh.decode, text)
    eq(reason, "Expected value but found invalid number at character 1", text)
end
eq(select(2, pcall(fresh.decode, "nan")), "Expected value but found invalid token at character 1")
eq(fresh.encode_keep_buffer(false), false)
eq(fresh.encode({ 1 }), "[1]")
eq(fresh.encode_keep_buffer("on"), true)
eq(fresh.encode({ 1 }), "[1]")
local function bad(name, want, ...)
    local fine, reason = pcall(fresh[name], ...)
    assert(not fine and reason:find(want, 1, true), name .. ": " .. tostring(reason))
end
bad("encode_max_depth", "expected integer between 1 and 2147483647", 0)
bad("encode_max_depth", "found too many arguments", 1, 2)
bad("encode_keep_buffer", "invalid option 'maybe'", "maybe")
eq(safe.new().decode("x"), nil, "new() of the safe module is safe")

-- text in, text out
local big = {}
for i = 1, 3000 do big[i] = { id = i, name = "item \"" .. i .. "\"", price = i / 100, ok = i % 2 == 0 } end
local again = cjson.decode(cjson.encode(big))
eq(#again, 3000)
eq(again[2999].name, 'item "2999"')
eq(again[2999].price, 29.99)
