-- resty.template with inline views: tags, line breaks, escapes, blocks, layouts, and two renderings that interleave.
--
-- Expected output:
--   &lt;b&gt; &quot;x&quot; &#39;y&#39; a&#47;b &amp; | <b>
--   [] [12.5] [true] [called] []
--   <ul>|  <li>1: a</li>|  <li>2: b</li>|</ul>|
--   {{literal}} \value {% x %}
--   {{raw}} {% raw %}
--   page(main)[side 7]
--   outer(inner(text))
--   1 1 / 2 2
--   nil and false: -- /no
--   included: <i>&lt;n&gt;</i>, expression: <i>e</i>
--   template:3: attempt to index global 'missing' (a nil value)
--   nil string
--   nil string, nil string, nil string
--   true false
--   <td class="c" id="1">x&lt;</td><br />

local template = require "resty.template"

local function show(view, context)
    ngx.say((template.process(view, context):gsub("\n", "|")))
end

show("{{text}} | {*raw*}", { text = [[<b> "x" 'y' a/b &]], raw = "<b>" })
show("[{{none}}] [{{number}}] [{{yes}}] [{{call}}] [{*null*}]", {
    number = 12.5,
    yes = true,
    call = function() return "called" end,
    null = ngx.null,
})
show([[
<ul>
{% for i, name in ipairs(names) do %}
  <li>{*i*}: {{name}}</li>
{% end %}
</ul>
]], { names = { "a", "b" } })
show([[\{{literal}} \\{{v}} \{% x %}]], { v = "value" })
show("{-raw-}{{raw}} {% raw %}{-raw-}")
show("{-side-}side {{n}}{-side-}{% layout = 'page({*view*})[{*blocks.side*}]' %}main", { n = 7 })

local layout = template.new("outer({*view*})")
local view = template.new("{% layout = 'inner({*view*})' %}{{word}}", layout)
view.word = "text"
ngx.say(tostring(view))

local function slow(value)
    return template.process("{{v}}{% ngx.sleep(0.005) %} {{v}}", { v = value })
end
local first, second = ngx.thread.spawn(slow, 1), ngx.thread.spawn(slow, 2)
local _, one = ngx.thread.wait(first)
local _, two = ngx.thread.wait(second)
ngx.say(one, " / ", two)

show("nil and false: -{{a}}-{{b}} / {% if c then %}yes{% else %}no{% end %}", { b = false, c = false })
show("included: {(<i>{{n}}</i>, { n = '<n>' } )}, expression: {['<i>{{n}}</i>', { n = 'e' } ]}")
ngx.say((select(2, pcall(template.process, "a\nb\n{{ missing.field }}\n"))))

local safe = require "resty.template.safe"
local text, err = safe.process("{% if %}")
ngx.say(tostring(text), " ", type(err))
local rendered, render_err = safe.render("{{ missing.field }}")
local file, file_err = safe.process_file("there is no such file")
local new, new_err = safe.new("{{ missing.field }}"):process()
ngx.say(tostring(rendered), " ", type(render_err), ", ", tostring(file), " ", type(file_err), ", ",
    tostring(new), " ", type(new_err))

local _, cached_before = template.compile("cache me")
template.compile("cache me")
local _, cached_after = template.compile("cache me")
ngx.say(tostring(cached_after), " ", tostring(cached_before))

local html = require "resty.template.html"
ngx.say(html.td { id = 1, class = "c" } ("x<"), html.br())
