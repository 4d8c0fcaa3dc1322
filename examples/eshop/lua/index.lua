-- The index page: / with products of all kinds, /?category=Mugs with those of one.

local cache = require "eshop.cache"
local clock = require "eshop.clock"
local page = require "eshop.page"
local view = require "eshop.view"

local trace = { started_us = clock.now_us() }

local function known_category(name)
    for _, category in ipairs(page.CATEGORIES) do
        if category == name then
            return category
        end
    end
end

local wanted = ngx.req.get_uri_args().category
local category = known_category(wanted)
if wanted and not category then
    return page.send_error(404, trace)
end

local shelf_name = category or "all"
local shelf, level = cache.lookup("shelf:" .. shelf_name, "/getShelf?name=" .. shelf_name)
if not shelf then
    return page.send_error(level == cache.NOT_FOUND and 404 or 503, trace)
end

local cards = {}
for i, product in ipairs(shelf) do
    cards[i] = view.card(product)
end

trace.level = level
trace.parts = { { name = "shelf", level = level } }
page.send("templates/index.html", { category = category, cards = cards }, trace,
    { title = category or "Good things for good rooms", category = category })
