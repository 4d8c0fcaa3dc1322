-- ngx.re and the module ngx.re.
--
-- Expected output:
--   match: hello, 1234 0=1234 1=1 2=234
--   unmatched: a false false b
--   named: 2026 11 | year 2026 month 11
--   duplicate names: x | 1 y
--   no match: nil nil
--   ctx: 12 pos 3 34 pos 6
--   res table: true ab old
--   errors: pcre2_compile() failed: missing closing parenthesis in "(abc" | unknown flag "H" (flags "Hm")
--   find: 8 11 | 9 11 | nil nil nil | nil nil nth out of bound
--   gmatch: one two three | - a - - | e-acute: 2
--   sub: hi [1] 22 33 / 1
--   gsub: hi [1] [22] [33] / 3
--   template: $a-b.ba / aXX / 2
--   bad template: nil nil failed to compile the replacement template | x nil
--   function: hello, <W>orld <1> / 2
--   nested function: (a1)(b1) / 2
--   empty matches: -h-e-l-l-o- 6 | -h-e--o- 5
--   nothing: same 0
--   dfa: abcd
--   caseless, extended, dotall: AB 1 3
--   limits of the subject: nil
--   split: a,b,c | a,b c d | a,,b, | h,e,l,l,o | a,1,b,2,c
--   split places: b,c | 0 | x,y,nil | b
--   split limits: a,b,,  | 5
--   opt: unrecognized option name | changing jit stack size is not allowed when some regexs have already been compiled and cached

local re = ngx.re
local more = require "ngx.re"

local function text(...)
    local parts = { ... }
    for i = 1, select("#", ...) do
        parts[i] = tostring(parts[i])
    end
    return table.concat(parts, " ")
end

local function problem(f, ...)
    local _, err = pcall(f, ...)
    return (tostring(err):gsub("^[^ ]+:%d+: ", ""))
end

local m = re.match("hello, 1234", "([0-9])([0-9]+)", "jo")
ngx.say("match: hello, ", m[0], " 0=", m[0], " 1=", m[1], " 2=", m[2])
m = re.match("ab", "(a)(x)?(y)?(b)")
ngx.say("unmatched: ", text(m[1], m[2], m[3], m[4]))
m = re.match("on 2026-11", "(?<year>\\d+)-(?<month>\\d+)", "jo")
ngx.say("named: ", m[1], " ", m[2], " | year ", m.year, " month ", m.month)
local dup = re.match("xy", "(?<n>a)?(?<n>x)", "D")
local both = re.match("xy", "(?<n>x)(?<n>y)", "D")
ngx.say("duplicate names: ", dup.n[1], " | ", #dup.n, " ", both.n[2])
ngx.say("no match: ", text(re.match("abc", "x"), nil))
local ctx = {}
local first = re.match("12, 34", "\\d+", "", ctx)
local at = ctx.pos
local second = re.match("12, 34", "\\d+$", "jo", ctx)
ngx.say("ctx: ", first[0], " pos ", at, " ", second[0], " pos ", ctx.pos - 1)
local res = { "x", "y", "old" }
local same = re.match("ab", "(a)(b)", "jo", nil, res)
ngx.say("res table: ", text(same == res, res[1] .. res[2], res[3]))
local _, err = re.match("x", "(abc")
ngx.say("errors: ", err, " | ", problem(re.match, "x", "x", "Hm"))
ngx.say("find: ", text(re.find("hello, 1234", "\\d+", "jo")), " | ",
    text(re.find("hello, 1234", "(\\d)(\\d+)", "jo", nil, 2)), " | ", text(re.find("x", "y"), nil, nil), " | ",
    text(re.find("x", "x", "jo", nil, 1)))

local words = {}
for word in re.gmatch("one, two three", "[a-z]+", "jo") do
    words[#words + 1] = word[0]
end
local pieces = {}
for piece in re.gmatch("1a1", "a*", "jo") do
    pieces[#pieces + 1] = piece[0] == "" and "-" or piece[0]
end
local letters = 0
for _ in re.gmatch("\195\169\195\169", "(?=.)|.", "u") do
    letters = letters + 1
end
ngx.say("gmatch: ", table.concat(words, " "), " | ", table.concat(pieces, " "), " | e-acute: ", letters)

local function show(new, n)
    return new .. " / " .. tostring(n)
end
ngx.say("sub: ", show(re.sub("hi 1 22 33", "(\\d+)", "[$1]", "jo")))
ngx.say("gsub: ", show(re.gsub("hi 1 22 33", "(\\d+)", "[${1}]", "jo")))
ngx.say("template: ", (re.sub("ab", "(a)(b)", "$$$1-$2.${2}$1$7", "jo")), " / ", show(re.gsub("a$b$", "\\$b?", "X")))
ngx.say("bad template: ", text(re.sub("a", "a", "$name")), " | ", (re.sub("a", "a", "x")), " ",
    tostring((re.gsub("a", "a", "${1"))))
ngx.say("function: ", show(re.gsub("hello, World 1", "[A-Z]|\\d", function(found)
    return "<" .. found[0] .. ">"
end, "jo")))
ngx.say("nested function: ", show(re.gsub("ab", "[a-z]", function(found)
    return (re.gsub(found[0], "[a-z]", "(${0}1)", "jo"))
end, "jo")))
ngx.say("empty matches: ", text(re.gsub("hello", "", "-", "jo")), " | ", text(re.gsub("hello", "l*", "-", "jo")))
ngx.say("nothing: ", text(re.gsub("same", "x", "y", "jo")))
ngx.say("dfa: ", re.match("abcd", "ab|abcd", "d")[0])
ngx.say("caseless, extended, dotall: ", re.match("xAB", "a b", "ix")[0], " ", text(re.find("a\nb", "a.b", "s")))
ngx.say("limits of the subject: ", tostring((re.match("abc", "b", "a"))))

local function list(t)
    return table.concat(t, ",")
end
ngx.say("split: ", list(more.split("a,b,c", ",")), " | ", list(more.split("a,b c d", " ", "jo", nil, 1)), " | ",
    list(more.split("a,,b,", ",", "jo", nil, 10)), " | ", list(more.split("hello", "", "jo")), " | ",
    list(more.split("a1b2c", "(\\d)", "jo")))
local reused = more.split("x,y", ",", "jo", nil, nil, { 1, 2, 3, 4 })
ngx.say("split places: ", list(more.split("a,b,c", ",", "jo", { pos = 3 })), " | ", #more.split("", ","), " | ",
    reused[1], ",", reused[2], ",", tostring(reused[3]), " | ", list(more.split("a,b", ",", "jo", { pos = 3 })))
ngx.say("split limits: ", list(more.split("a,b,,", ",", "", nil, 4)), "  | ", #more.split("a b  c d", " ", "jo"))
ngx.say("opt: ", problem(more.opt, "x", 1), " | ", problem(more.opt, "jit_stack_size", 100000))
