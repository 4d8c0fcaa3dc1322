-- The module zlib. What openssl and other zlibs made of the same input stands here as it is.
--
-- Expected output:
--   whole: 19 true 11 19 hello world true 19 11
--   over: IllegalState: calling deflate function when stream was previously closed
--   over, but nothing to do: 0 true
--   formats: 1f8b 78 gzip true, zlib true, raw true
--   wrong format: InvalidInput
--   pieces: true 1600000
--   flushed: one two true
--   concatenated: gzip 24
--   another zlib's: hello
--   garbage: InvalidInput
--   checksums: 907060870 300286872 true true
--   lzlib: true
--   version: number
--   arguments: bad argument #2 to '?' (invalid option 'bogus')

local zlib = require "zlib"
local to_hex = require("resty.string").to_hex

local function word(ok, err)
    return ok or err:match("%u%a+:") and err:match("(%u%a+):") or err
end

local stream = zlib.deflate()
local made, eof, bytes_in, bytes_out = stream("hello world", "finish")
local back, back_eof, back_in, back_out = zlib.inflate()(made)
ngx.say("whole: ", #made, " ", eof, " ", bytes_in, " ", bytes_out, " ", back, " ", back_eof, " ", back_in, " ", back_out)
ngx.say("over: ", (select(2, pcall(stream, "more")):gsub("^.-(%u)", "%1", 1)))
local nothing, still_eof = stream("")
ngx.say("over, but nothing to do: ", #nothing, " ", still_eof)

local gzip, packed, raw = zlib.deflate(9, 15 + 16)("gzip", "finish"), zlib.deflate(9)("zlib", "finish"),
    zlib.deflate(6, -15)("raw", "finish")
ngx.say("formats: ", to_hex(gzip:sub(1, 2)), " ", to_hex(packed:sub(1, 1)), " ", zlib.inflate()(gzip), " ",
    zlib.inflate(15 + 16)(gzip) == "gzip", ", ", zlib.inflate()(packed), " ", zlib.inflate(15)(packed) == "zlib", ", ",
    zlib.inflate(-15)(raw), " ", (zlib.inflate(-15)(raw)) == "raw")
ngx.say("wrong format: ", word(nil, select(2, pcall(zlib.inflate(15), gzip))))

local big = ("abcdefgh"):rep(200000)
local small = zlib.compress(big)
local inflate, pieces = zlib.inflate(), {}
for at = 1, #small, 100 do
    pieces[#pieces + 1] = inflate(small:sub(at, at + 99))
end
ngx.say("pieces: ", table.concat(pieces) == big, " ", #zlib.decompress(small))

local deflate, from = zlib.deflate(), zlib.inflate()
local one, two = from((deflate("one", "sync"))), from((deflate("two", "full")))
local _, is_over = from((deflate()))
ngx.say("flushed: ", one, " ", two, " ", is_over)

local first, _, taken = zlib.inflate()(gzip .. gzip)
ngx.say("concatenated: ", first, " ", taken)
ngx.say("another zlib's: ", (zlib.inflate()("\120\156\203\72\205\201\201\7\0\6\44\2\21")))
ngx.say("garbage: ", word(nil, select(2, pcall(zlib.inflate(), "not compressed"))))

local crc1, crc2, adler1, adler2 = zlib.crc32(), zlib.crc32(), zlib.adler32(), zlib.adler32()
crc1("hello")
crc2("world")
adler1("Wiki")
adler2("pedia")
ngx.say("checksums: ", zlib.crc32()("hello"), " ", zlib.adler32()("Wikipedia"), " ",
    crc1(crc2) == ngx.crc32_long("helloworld"), " ", adler1(adler2) == 300286872)
ngx.say("lzlib: ", zlib.crc32(0, "hello") == zlib.crc32()("hello"))
ngx.say("version: ", type(zlib.version()))
ngx.say("arguments: ", (select(2, pcall(zlib.deflate(), "x", "bogus"))))
