-- Turns rows, as the cache service gives them, into what the templates show. A field that is missing or of another
-- type becomes empty; it never breaks the page.

local floor = math.floor

local _M = {}

local function text(value)
    local kind = type(value)
    if kind == "string" or kind == "number" then
        return tostring(value)
    end
    return ""
end

-- Splits at `separator`, a single character, and trims the blanks.
local function split(value, separator)
    local parts = {}
    for part in text(value):gmatch("[^" .. separator .. "]+") do
        part = part:match("^%s*(.-)%s*$")
        if part ~= "" then
            parts[#parts + 1] = part
        end
    end
    return parts
end

-- 1234.5 becomes "1,234.50".
local function money(value)
    local amount = ("%.2f"):format(tonumber(value) or 0)
    local whole, cents = amount:match("^(%d+)(%.%d+)$")
    if not whole then
        return amount
    end
    whole = whole:reverse():gsub("(%d%d%d)", "%1,"):reverse():gsub("^,", "")
    return whole .. cents
end

-- Colours with the name of their style class.
local function colors(value)
    local list = split(value, ",")
    for i, name in ipairs(list) do
        list[i] = { name = name, tint = name:lower():gsub("[^a-z0-9]+", "-") }
    end
    return list
end

local function rows(value)
    local list = {}
    for _, part in ipairs(split(value, ";")) do
        local name, content = part:match("^([^:]+):%s*(.+)$")
        list[#list + 1] = { name = name or "", value = content or part }
    end
    return list
end

-- What a card on the index page shows.
function _M.card(product)
    local tints = colors(product.color)
    return {
        id = text(product.id),
        shop_id = text(product.shopId),
        name = text(product.name),
        price = money(product.price),
        picture = split(product.pictureList, ",")[1],
        colors = tints,
        tint = tints[1] and tints[1].tint or "none",
    }
end

-- What the product page shows of the product.
function _M.product(product)
    local view = _M.card(product)
    view.category = text(product.category)
    view.description = text(product.description)
    view.pictures = split(product.pictureList, ",")
    view.specification = rows(product.specification)
    view.promises = split(product.service, ";")
    view.sizes = split(product.size, ",")
    view.modified = text(product.modifiedTime):sub(1, 10)
    return view
end

-- What the product page shows of the shop.
function _M.shop(shop)
    local name = text(shop.name)
    return {
        id = text(shop.id),
        name = name,
        initial = name:gsub("^House of ", ""):gsub("^Atelier ", ""):match("^[%z\1-\127\194-\244][\128-\191]*") or "",
        level = floor(math.max(0, math.min(5, tonumber(shop.level) or 0))),
        good = ("%.1f"):format((tonumber(shop.goodCommentRate) or 0) * 100),
        city = text(shop.city),
        since = text(shop.since),
        motto = text(shop.motto),
    }
end

return _M
