-- The product page: /product?productId=1&shopId=1
--
-- 400 for arguments that are missing or no numbers, 404 for an unknown product or shop, 503 when the data cannot be had.

local cache = require "eshop.cache"
local clock = require "eshop.clock"
local page = require "eshop.page"
local view = require "eshop.view"

local STATUS = { [cache.NOT_FOUND] = 404, [cache.UNAVAILABLE] = 503 }

local trace = { started_us = clock.now_us() }

-- An argument that is given once and is a number from 1 to 999,999,999; else nil.
local function id_argument(args, name)
    local value = args[name]
    if type(value) == "string" and #value <= 9 and value:find("^[1-9]%d*$") then
        return value
    end
end

local args = ngx.req.get_uri_args()
local product_id = id_argument(args, "productId")
local shop_id = id_argument(args, "shopId")
if not product_id or not shop_id then
    return page.send_error(400, trace)
end

local product, product_level = cache.lookup("product:" .. product_id, "/getProductInfo?productId=" .. product_id)
if not product then
    return page.send_error(STATUS[product_level], trace)
end

local shop, shop_level = cache.lookup("shop:" .. shop_id, "/getShopInfo?shopId=" .. shop_id)
if not shop then
    return page.send_error(STATUS[shop_level], trace)
end

trace.level = cache.farther(product_level, shop_level)
trace.parts = { { name = "product", level = product_level }, { name = "shop", level = shop_level } }

local product_view = view.product(product)
page.send("templates/product.html", { product = product_view, shop = view.shop(shop) }, trace,
    { title = product_view.name, category = product_view.category })
