-- A table of header fields whose names match in any case, and with "_" for "-". Iterating yields the names as first
-- set.
--
-- The fields stand in the table itself, so exact names cost a plain lookup. Other spellings go through an index from
-- the folded name to the name in use, which hangs in the table's own metatable.

local getmetatable = getmetatable
local gsub = string.gsub
local lower = string.lower
local rawget = rawget
local rawset = rawset
local setmetatable = setmetatable
local type = type

-- Folded forms are remembered; when there are this many the memory starts anew.
local FOLDED_NAMES_MAX = 1000

local _M = { _VERSION = "0.1.0" }

local folded_names, folded_count = {}, 0


local function fold(name)
    local folded = folded_names[name]
    if folded then
        return folded
    end
    folded = gsub(lower(name), "_", "-")
    if folded_count >= FOLDED_NAMES_MAX then
        folded_names, folded_count = {}, 0
    end
    folded_count = folded_count + 1
    folded_names[name] = folded
    return folded
end


local function index(headers, name)
    if type(name) ~= "string" then
        return nil
    end
    local used = getmetatable(headers).names[fold(name)]
    return used and rawget(headers, used)
end


local function newindex(headers, name, value)
    if type(name) ~= "string" then
        rawset(headers, name, value)
        return
    end
    local names = getmetatable(headers).names
    local folded = fold(name)
    local used = names[folded]
    if used and rawget(headers, used) ~= nil then
        rawset(headers, used, value)
        return
    end
    names[folded] = name
    rawset(headers, name, value)
end


-- An empty table of header fields.
function _M.new()
    return setmetatable({}, { __index = index, __newindex = newindex, names = {} })
end


-- Adds a field as it arrives: the values of fields with one name become a list.
function _M.add(headers, name, value)
    local names = getmetatable(headers).names
    local folded = fold(name)
    local used = names[folded]
    local present = used and rawget(headers, used)
    if present == nil then
        names[folded] = name
        rawset(headers, name, value)
    elseif type(present) == "table" then
        present[#present + 1] = value
    else
        rawset(headers, used, { present, value })
    end
end


return _M
