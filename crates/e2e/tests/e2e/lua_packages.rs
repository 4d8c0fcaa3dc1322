//! Lua packages where opm, LuaRocks and Debian put them.

use e2e::server::Server;
use e2e::stack::{Kafka, Memcached, Redis};

/// Runs a script as content, with more directives for `http`, and compares what it prints.
fn prints(http: &str, files: &[(&str, &str)], script: &str, wanted: &str) {
    let conf = format!(
        "error_log logs/error.log info;
        events {{}}
        http {{
            {http}
            server {{
                listen 127.0.0.1:PORT;
                location / {{ content_by_lua_file script.lua; }}
                location /echo {{ content_by_lua_file echo.lua; }}
            }}
        }}"
    );
    let files: Vec<_> = files.iter().copied().chain([("script.lua", script), ("echo.lua", ECHO)]).collect();
    let server = Server::start(&conf, &files);
    let response = server.get("/");
    assert_eq!(response.text(), wanted, "{}", server.error_log());
}

#[test]
fn trees_below_the_prefix_are_found_and_win() {
    let files = [
        ("resty_modules/lualib/resty/greeting.lua", "return { say = function() return 'from opm' end }"),
        ("resty_modules/lualib/resty/http.lua", "return { whose = 'yours' }"),
        ("lua_modules/share/lua/5.1/rock/init.lua", "return { name = ... }"),
    ];
    let script = "
        ngx.say(require('resty.greeting').say())
        ngx.say(require('resty.http').whose)
        ngx.say(require('rock').name)
        ngx.say(pcall(require, 'no.such.rock'))";
    let server = Server::start(
        "error_log logs/error.log info;
         events {}
         http { server { listen 127.0.0.1:PORT; location / { content_by_lua_file script.lua; } } }",
        &[&files[..], &[("script.lua", script)]].concat(),
    );
    let text = server.get("/").text();
    assert!(text.starts_with("from opm\nyours\nrock\nfalse"), "{text}");
    let looked = ["/resty_modules/lualib/no/such/rock.lua'", "/.luarocks/share/lua/5.1/no/such/rock.lua'"];
    for place in looked.into_iter().chain(["'/usr/share/lua/5.1/no/such/rock.lua'", "no built-in module"]) {
        assert!(text.contains(place), "{place}: {text}");
    }
}

/// Who wants the copies of the system's package manager instead of ours names their folder.
#[test]
fn what_debian_installs_stands_behind_the_binary_s_unless_it_is_named() {
    let script = "
        local lru, cjson, zlib = require 'resty.lrucache', require 'cjson', require 'zlib'
        local cache = assert(lru.new(2))
        cache:set('a', 1) cache:set('b', 2) cache:set('c', 3)
        local inflated = zlib.inflate()(zlib.deflate()('squeezed', 'finish'))
        ngx.say(tostring(cache:get('a')), ' ', cache:get('c'), ' ', cjson.decode('[1,{\"x\":2}]')[2].x, ' ', inflated)
        ngx.say(debug.getinfo(lru.new).source:sub(1, 9), ' ', debug.getinfo(cjson.decode).what)";
    prints("", &[], script, "nil 3 2 squeezed\n=builtin: C\n");
    let named = "lua_package_path '/usr/share/lua/5.1/?.lua;;';
        lua_package_cpath '/usr/lib/x86_64-linux-gnu/lua/5.1/?.so;/usr/lib/aarch64-linux-gnu/lua/5.1/?.so;;';";
    let script = format!("{script}\nngx.say(package.searchpath('cjson', package.cpath):match('[^/]*$'))");
    prints(named, &[], &script, "nil 3 2 squeezed\n@/usr/sha C\ncjson.so\n");
}

const ECHO: &str = "
    local socket = assert(require('nginx.websocket.server'):new())
    local data = socket:recv_frame()
    socket:send_text('heard ' .. data)
    socket:send_close()";

#[test]
fn debian_s_packages_for_nginx_work_as_installed() {
    let (redis, memcached, kafka) = (Redis::start(), Memcached::start(), Kafka::shared());
    kafka.create_topic("debian", 1);
    let script = format!(
        "
        local redis = assert(require('nginx.redis'):new())
        assert(redis:connect('127.0.0.1', {}))
        redis:init_pipeline()
        redis:set('k', 'v')
        redis:get('k')
        ngx.say('redis ', assert(redis:commit_pipeline())[2])

        local memcached = assert(require('nginx.memcached'):new())
        assert(memcached:connect('127.0.0.1', {}))
        assert(memcached:set('k', 'v', 0, 7))
        local value, flags = memcached:get('k')
        ngx.say('memcached ', value, ' ', flags)

        local producer = require('nginx.kafka.producer'):new({{ {{ host = '127.0.0.1', port = {} }} }})
        local offset = assert(producer:send('debian', 'key', 'message'))
        ngx.say('kafka ', tonumber(offset) >= 0)

        local text = require 'nginx.string'
        ngx.say('string ', text.to_hex('Az\\255'), ' ', text.atoi('42'), ' ', text.atoi('4x'))
        local digest = require('nginx.sha256'):new()
        digest:update('a')
        ngx.say('sha256 ', text.to_hex(digest:final()):sub(1, 16))
        local aes = assert(require('nginx.aes'):new('a secret'))
        ngx.say('aes ', aes:decrypt(aes:encrypt('hidden')), ' ', #require('nginx.random').bytes(9))

        local dns = assert(require('nginx.dns.resolver'):new{{ nameservers = {{ {{ '127.0.0.1', 9 }} }}, retrans = 1, timeout = 50 }})
        ngx.say('dns ', dns:query('localhost') == nil)

        local client = assert(require('nginx.websocket.client'):new())
        assert(client:connect('ws://127.0.0.1:' .. ngx.var.server_port .. '/echo'))
        assert(client:send_text('you'))
        ngx.say('websocket ', client:recv_frame(), ' ', (select(2, client:recv_frame())))",
        redis.port, memcached.port, kafka.port
    );
    prints(
        "",
        &[],
        &script,
        "redis v\nmemcached v 7\nkafka true\nstring 417aff 42 -1\nsha256 ca978112ca1bbdca\naes hidden 9\ndns true\n\
         websocket heard you close\n",
    );
}
