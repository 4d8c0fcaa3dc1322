-- resty.dns.resolver without a server: addresses as text, messages as bytes.
--
-- Expected output:
--   4.3.2.1.in-addr.arpa 1.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.F.F.ip6.arpa
--   FF01:0:0:0:0:0:0:101 0:0:0:0:0:0:0:1 0:0:0:0:0:0:0:0 1:0:0:0:0:0:0:0
--   FF01::101 ::1 1:2:3:4:5:6:7:8
--   no options table specified
--   no nameservers specified
--   question 12340100000100000000000001610474657374000001 0001
--   bad name bad name bad name
--   a.test 5 real.test 60
--   real.test 1 127.0.0.9 7
--   id mismatch
--   truncated
--   bad QR flag in the DNS response
--   3 name error 0
--   bad name
--   bad A record value length: 3

local message = require "terrace.dns_message"
local resolver = require "resty.dns.resolver"
local to_hex = require("resty.string").to_hex

ngx.say(resolver.arpa_str("1.2.3.4"), " ", resolver.arpa_str("FF01::101"))
local expand, compress = resolver.expand_ipv6_addr, resolver.compress_ipv6_addr
ngx.say(expand("FF01::101"), " ", expand("::1"), " ", expand("::"), " ", expand("1::"))
ngx.say(compress("FF01:0:0:0:0:0:0:101"), " ", compress("0:0:0:0:0:0:0:1"), " ", compress("1:2:3:4:5:6:7:8"))
ngx.say((select(2, resolver:new())))
ngx.say((select(2, resolver:new {})))

local question = message.question(0x1234, "a.test", 1, true)
ngx.say("question ", to_hex(question:sub(1, -3)), " ", to_hex(question:sub(-2)))
ngx.say((select(2, message.question(1, ".a", 1))), " ", (select(2, message.question(1, "a..b", 1))), " ",
    (select(2, message.question(1, ("x"):rep(64), 1))))

-- A reply with a CNAME and an address; names are pointers where they can be.
local asked = question:sub(13)
local cname = "\192\12\0\5\0\1\0\0\0\60\0\11\4real\4test\0"
local address = "\192" .. string.char(12 + #asked + 12) .. "\0\1\0\1\0\0\0\7\0\4\127\0\0\9"
local function reply(flags, answers, records)
    return "\18\52" .. flags .. "\0\1\0" .. string.char(answers) .. "\0\0\0\0" .. asked .. records
end
for _, record in ipairs(message.reply(reply("\129\128", 2, cname .. address), 0x1234, {})) do
    ngx.say(record.name, " ", record.type, " ", record.cname or record.address, " ", record.ttl)
end
ngx.say((select(2, message.reply(reply("\129\128", 0, ""), 0x1235, {}))))
ngx.say((select(2, message.reply(reply("\131\128", 0, ""), 0x1234, {}))))
ngx.say((select(2, message.reply(reply("\1\128", 0, ""), 0x1234, {}))))
local none = message.reply(reply("\129\131", 0, ""), 0x1234, {})
ngx.say(none.errcode, " ", none.errstr, " ", #none)
-- A pointer to itself.
local circle = "\192" .. string.char(12 + #asked) .. "\0\1\0\1\0\0\0\7\0\4\127\0\0\9"
ngx.say((select(2, message.reply(reply("\129\128", 1, circle), 0x1234, {}))))
ngx.say((select(2, message.reply(reply("\129\128", 1, "\192\12\0\1\0\1\0\0\0\7\0\3\127\0\0"), 0x1234, {}))))
