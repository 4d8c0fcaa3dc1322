-- Input made to break a parser: truncated, mutated, deep and wide documents must end in a value or in an error.
local cjson = require "cjson"
local safe = require "cjson.safe"

local document = '{"a":[1,-2.5e3,true,false,null,"\\u00e9\\ud83d\\ude00\\n"],"b":{"c":"d/e","f":[[],{}]},"g":1e-7} '
assert(safe.decode(document))
for last = 1, #document - 2 do
    local value, err = safe.decode(document:sub(1, last))
    assert(value == nil and type(err) == "string", last)
end

-- every byte replaced by every other
for at = 1, #document do
    for byte = 0, 255 do
        local value, err = safe.decode(document:sub(1, at - 1) .. string.char(byte) .. document:sub(at + 1))
        assert(value ~= nil or type(err) == "string")
        if value then
            safe.encode(value)
        end
    end
end

-- as deep as the settings allow and deeper than the stack does
local json = cjson.new()
json.decode_max_depth(2147483647)
json.encode_max_depth(2147483647)
for _, depth in ipairs { 1000, 2500, 5000, 100000, 1000000 } do
    for _, pair in ipairs { { "[", "]" }, { '{"a":', "}" } } do
        local ok, value = pcall(json.decode, pair[1]:rep(depth) .. "1" .. pair[2]:rep(depth))
        if ok then
            local fine, text = pcall(json.encode, value)
            assert(fine or text:find("excessive nesting", 1, true), text)
        else
            assert(value:find("too many nested data structures", 1, true), value)
        end
    end
end
local cycle = {}
cycle[1] = cycle
assert(select(2, pcall(json.encode, cycle)):find("excessive nesting", 1, true))

-- wide
local wide = {}
for i = 1, 200000 do wide[i] = i end
assert(#json.decode(json.encode(wide)) == 200000)
local long = ("a\\\"/\1"):rep(300000)
assert(json.decode(json.encode(long)) == long)

-- keys beyond any array
json.encode_sparse_array(false, 0, 0)
assert(json.encode({ [2 ^ 40] = 1 }) == '{"1099511627776":1}')
assert(json.encode({ [math.huge] = 1 } and { [-1] = 1 }) == '{"-1":1}')
assert(not pcall(json.encode, { [math.huge] = 1 }))
assert(not pcall(cjson.encode, { [2 ^ 31 - 1] = 1 }))
