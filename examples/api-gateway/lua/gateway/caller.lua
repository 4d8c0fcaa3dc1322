-- Who calls: a request names a key and is signed with its secret.
--
-- X-Key, X-Time (seconds since 1970), X-Nonce (used once) and X-Sign, the base64 of HMAC-SHA1 over these lines:
--     method, address as sent (path and arguments), time, nonce, SHA-256 of the body in hex

local resty_sha256 = require "resty.sha256"
local resty_string = require "resty.string"
local settings = require "gateway.settings"
local store = require "gateway.store"

local byte, concat = string.byte, table.concat
local bor, bxor = bit.bor, bit.bxor

local _M = {}

-- A field that is sent once, with a length and in characters that cannot be mistaken in the lines that are signed.
local function field(headers, name, length_max)
    local value = headers[name]
    if type(value) ~= "string" or #value > length_max or not value:find("^[%w_./+=-]+$") then
        return nil, name .. " is missing or malformed"
    end
    return value
end

-- Takes as long for a wrong first byte as for a wrong last one.
local function is_same(one, other)
    if #one ~= #other then
        return false
    end
    local difference = 0
    for i = 1, #one do
        difference = bor(difference, bxor(byte(one, i), byte(other, i)))
    end
    return difference == 0
end

local function body_digest()
    ngx.req.read_body()
    local sha256 = resty_sha256:new()
    sha256:update(ngx.req.get_body_data() or "")
    return resty_string.to_hex(sha256:final())
end

-- Returns the key of the caller; or nil, a status and a message.
function _M.identify()
    local headers = ngx.req.get_headers()
    local key, missing = field(headers, "X-Key", settings.key_length_max)
    local time, nonce, sign
    if key then
        time, missing = field(headers, "X-Time", 10)
    end
    if time then
        nonce, missing = field(headers, "X-Nonce", settings.nonce_length_max)
    end
    if nonce then
        sign, missing = field(headers, "X-Sign", 28)
    end
    if not sign then
        return nil, 401, missing
    end

    local seconds = time:find("^%d+$") and tonumber(time)
    if not seconds or math.abs(ngx.time() - seconds) > settings.clock_difference_max_s then
        return nil, 401, "X-Time is not the time"
    end

    local secret, err = store.cached(settings.secret_s, "hget", settings.secrets, key)
    if secret == nil then
        ngx.log(ngx.ERR, "secret of ", key, ": ", err)
        return nil, 503, "callers cannot be checked at the moment"
    end
    local lines = { ngx.req.get_method(), ngx.var.request_uri, time, nonce, body_digest() }
    -- An unknown key costs the same and is told the same as a wrong signature.
    local wanted = ngx.encode_base64(ngx.hmac_sha1(secret or "", concat(lines, "\n")))
    if not is_same(wanted, sign) or not secret then
        return nil, 401, "X-Key or X-Sign is wrong"
    end

    -- A nonce is forgotten once its time is too old to be taken.
    local added, failure = ngx.shared.gateway_nonces:safe_add(key .. " " .. nonce, true,
        2 * settings.clock_difference_max_s)
    if failure == "exists" then
        return nil, 401, "X-Nonce was used before"
    elseif not added then
        ngx.log(ngx.ERR, "gateway_nonces: ", failure)
        return nil, 503, "callers cannot be checked at the moment"
    end
    return key
end

return _M
