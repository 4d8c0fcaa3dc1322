-- Renders a view inside the layout and sends it, with the headers that tell how it was served.
--
-- The views are asked for as "templates/….html": resty.template keeps compiled views by that name, and a plain
-- "product.html" would be taken for the page of seed/product.lua.

local clock = require "eshop.clock"
local template = require "resty.template"

local LAYOUT = "templates/layout.html"

local CATEGORIES = {
    "Lighting", "Seating", "Mugs", "Bags", "Headphones", "Watches", "Teapots", "Vases", "Radios", "Notebooks",
}

local ERRORS = {
    [400] = {
        title = "That address is not complete",
        text = "A product page needs the number of a product and the number of a shop, as in the links of our index.",
    },
    [404] = {
        title = "We looked on every shelf",
        text = "What you asked for is not here: perhaps it was sold for good, or the address has a slip in it.",
    },
    [503] = {
        title = "The storeroom does not answer",
        text = "We cannot fetch this page at the moment. Nothing is lost; please try again in a few seconds.",
    },
}

local _M = { CATEGORIES = CATEGORIES }

-- Sends `view` with `context`. `trace` has started_us and, where data was looked up, level (for the header) and parts
-- (what the footer says, for example "product from source"). `options` may have title, category and status.
function _M.send(view, context, trace, options)
    local body = template.compile(view)(context)
    local application = ngx.var.application
    local elapsed_us = math.floor(clock.now_us() - trace.started_us)
    local html = template.compile(LAYOUT)({
        title = options.title,
        category = options.category,
        categories = CATEGORIES,
        body = body,
        application = application,
        parts = trace.parts or {},
        elapsed_us = elapsed_us,
    })

    local header = ngx.header
    header["Content-Type"] = "text/html; charset=utf-8"
    header["Content-Length"] = #html
    header["X-Served-By"] = application
    header["X-Cache-Level"] = trace.level
    header["X-Render-Time-Us"] = elapsed_us
    if options.status then
        ngx.status = options.status
        header["Cache-Control"] = "no-store"
    end
    ngx.print(html)
end

-- Sends the page for status 400, 404 or 503.
function _M.send_error(status, trace)
    local said = ERRORS[status]
    if status == 503 then
        ngx.header["Retry-After"] = 5
    end
    local context = { status = status, title = said.title, text = said.text }
    _M.send("templates/error.html", context, trace, { title = said.title, status = status })
end

return _M
