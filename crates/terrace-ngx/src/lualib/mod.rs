//! The Lua files in the binary, by the name under which `require` finds them.

macro_rules! modules {
    ($($name:literal => $file:literal,)*) => {
        /// Every module of the library; a user's own copy on the path wins over it.
        pub static MODULES: &[(&str, &[u8])] = &[$(($name, include_bytes!($file)),)*];
    };
}

/// Sets up a fresh VM: the native functions, then the `ngx` table.
pub static SETUP: &[u8] = include_bytes!("terrace/setup.lua");

modules! {
    "terrace.base" => "terrace/base.lua",
    "terrace.cache" => "terrace/cache.lua",
    "terrace.digest" => "terrace/digest.lua",
    "terrace.http_reader" => "terrace/http_reader.lua",
    "terrace.http_response" => "terrace/http_response.lua",
    "terrace.http_uri" => "terrace/http_uri.lua",
    "terrace.http_writer" => "terrace/http_writer.lua",
    "terrace.lru" => "terrace/lru.lua",
    "terrace.redis_slot" => "terrace/redis_slot.lua",
    "terrace.redis_slots" => "terrace/redis_slots.lua",
    "terrace.template_parser" => "terrace/template_parser.lua",
    "terrace.ngx.body" => "ngx/body.lua",
    "terrace.ngx.constants" => "ngx/constants.lua",
    "terrace.ngx.context" => "ngx/context.lua",
    "terrace.ngx.encode" => "ngx/encode.lua",
    "terrace.ngx.header" => "ngx/header.lua",
    "terrace.ngx.location" => "ngx/location.lua",
    "terrace.ngx.log" => "ngx/log.lua",
    "terrace.ngx.ndk" => "ngx/ndk.lua",
    "terrace.ngx.output" => "ngx/output.lua",
    "terrace.ngx.var" => "ngx/var.lua",
    "terrace.ngx.re" => "ngx/re.lua",
    "terrace.ngx.shared" => "ngx/shared.lua",
    "terrace.ngx.req" => "ngx/req.lua",
    "terrace.ngx.time" => "ngx/time.lua",
    "terrace.ngx.sleep" => "ngx/sleep.lua",
    "terrace.ngx.socket" => "ngx/socket.lua",
    "terrace.ngx.thread" => "ngx/thread.lua",
    "terrace.ngx.timer" => "ngx/timer.lua",
    "terrace.ngx.udp" => "ngx/udp.lua",
    "terrace.ngx.worker" => "ngx/worker.lua",
    "ngx.balancer" => "ngx/balancer.lua",
    "ngx.errlog" => "ngx/errlog.lua",
    "resty.http" => "resty/http.lua",
    "resty.http_connect" => "resty/http_connect.lua",
    "resty.http_headers" => "resty/http_headers.lua",
    "resty.lock" => "resty/lock.lua",
    "resty.lrucache" => "resty/lrucache.lua",
    "resty.lrucache.pureffi" => "resty/lrucache/pureffi.lua",
    "resty.md5" => "resty/md5.lua",
    "rediscluster" => "rediscluster.lua",
    "resty.memcached" => "resty/memcached.lua",
    "resty.random" => "resty/random.lua",
    "resty.redis" => "resty/redis.lua",
    "resty.rediscluster" => "resty/rediscluster.lua",
    "resty.sha" => "resty/sha.lua",
    "resty.sha1" => "resty/sha1.lua",
    "resty.sha224" => "resty/sha224.lua",
    "resty.sha256" => "resty/sha256.lua",
    "resty.sha384" => "resty/sha384.lua",
    "resty.sha512" => "resty/sha512.lua",
    "resty.string" => "resty/string.lua",
    "resty.template" => "resty/template.lua",
    "resty.template.html" => "resty/template/html.lua",
    "resty.template.safe" => "resty/template/safe.lua",
}
