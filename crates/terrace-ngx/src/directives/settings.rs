//! The `lua_*` settings, `lua_shared_dict`, and `set_by_lua`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use terrace_base::log::Level;
use terrace_conf::{Arity, ConfError, Contexts, Directive, Node, Shape};
use terrace_http::conf::table::simple;
use terrace_http::tls::values::{ciphers, file, protocols};
use terrace_http::{Builder, Value};
use terrace_proxy::UpstreamHooks;
use terrace_shdict::Dict;

use crate::chunks::Code;
use crate::handlers::SetCode;
use crate::settings::{LuaLocation, LuaMain};
use Arity::{AtLeast, Exactly, Flag};

macro_rules! location {
    ($field:ident, $read:expr) => {
        |b, n| {
            let value = $read(n)?;
            n.set_once(&mut b.conf::<LuaLocation>().$field, value)
        }
    };
}

macro_rules! main_flag {
    ($field:ident) => {
        |b, n| {
            let value = n.flag(0)?;
            n.set_once(&mut b.state::<LuaMain>().$field, value)
        }
    };
}

fn flag(n: &Node) -> Result<bool, ConfError> {
    n.flag(0)
}

fn time_ms(n: &Node) -> Result<u64, ConfError> {
    n.time_ms(0)
}

fn set_code_cache(b: &mut Builder, n: &Node) -> Result<(), ConfError> {
    if !n.flag(0)? {
        b.state::<LuaMain>().code_cache_off = true;
        b.remark(Level::Alert, &n.at, "lua_code_cache is off; this will hurt performance");
    }
    Ok(())
}

/// Directives that only tune what Terrace does otherwise; taken without effect.
fn tuned(_: &mut Builder, _: &Node) -> Result<(), ConfError> {
    Ok(())
}

/// The smallest `lua_shared_dict` (OpenResty's bound).
const DICT_BYTES_MIN: u64 = 8191;

#[rustfmt::skip]
pub(super) fn table(hsl: Contexts) -> Vec<Directive<Builder>> {
    const HTTP: Contexts = Contexts::HTTP;
    let hsli = hsl.union(Contexts::LOCATION_IF);
    let set = Contexts::SERVER.union(Contexts::SERVER_IF).union(Contexts::LOCATION).union(Contexts::LOCATION_IF);
    vec![
        simple("lua_package_path", HTTP, Exactly(1), ";;", "Where require finds Lua modules; ;; is the default path.", |b, n| { let t = prefixed(b, n)?; n.set_once(&mut b.state::<LuaMain>().package_path, t) }),
        simple("lua_package_cpath", HTTP, Exactly(1), ";;", "Where require finds C modules.", |b, n| { let t = prefixed(b, n)?; n.set_once(&mut b.state::<LuaMain>().package_cpath, t) }),
        simple("lua_code_cache", hsli, Flag, "on", "Whether Lua code is kept between requests; off is for development.", set_code_cache),
        simple("lua_shared_dict", HTTP, Exactly(2), "", "A dictionary of this name and size that all workers share.", set_dict),
        simple("set_by_lua", set, AtLeast(2), "", "Sets a variable to what Lua code returns.", set_by_lua),
        Directive { shape: Shape::Raw, ..simple("set_by_lua_block", set, Exactly(1), "", "Sets a variable to what Lua code returns.", set_by_lua_block) },
        simple("set_by_lua_file", set, AtLeast(2), "", "Sets a variable to what a Lua file returns.", set_by_lua_file),
        simple("lua_need_request_body", hsli, Flag, "off", "Whether the request body is read before the code runs.", location!(need_request_body, flag)),
        simple("lua_socket_connect_timeout", hsl, Exactly(1), "60s", "How long ngx.socket.tcp's connect may take.", location!(socket_connect_timeout, time_ms)),
        simple("lua_socket_send_timeout", hsl, Exactly(1), "60s", "How long its send may take.", location!(socket_send_timeout, time_ms)),
        simple("lua_socket_read_timeout", hsl, Exactly(1), "60s", "How long its receive may take.", location!(socket_read_timeout, time_ms)),
        simple("lua_socket_keepalive_timeout", hsl, Exactly(1), "60s", "How long a pooled connection may idle.", location!(socket_keepalive_timeout, time_ms)),
        simple("lua_socket_pool_size", hsl, Exactly(1), "30", "How many idle connections a pool keeps.", location!(socket_pool_size, |n: &Node| n.number(0))),
        simple("lua_socket_send_lowat", hsl, Exactly(1), "0", "Accepted without effect.", tuned),
        simple("lua_socket_buffer_size", hsl, Exactly(1), "4k", "The size of the buffer that sockets read into.", location!(socket_buffer_size, |n: &Node| n.size(0))),
        simple("lua_socket_log_errors", hsl, Flag, "on", "Whether socket errors are logged.", location!(socket_log_errors, flag)),
        simple("lua_transform_underscores_in_response_headers", hsl, Flag, "on", "Whether ngx.header.a_b means A-B.", location!(transform_underscores, flag)),
        simple("lua_use_default_type", hsl, Flag, "on", "Whether responses get the default type.", location!(use_default_type, flag)),
        simple("lua_check_client_abort", hsli, Flag, "off", "Whether a client that leaves while code waits ends the request.", location!(check_client_abort, flag)),
        simple("lua_http10_buffering", hsli, Flag, "on", "Whether HTTP/1.0 responses are held back for their length.", location!(http10_buffering, flag)),
        simple("rewrite_by_lua_no_postpone", HTTP, Flag, "off", "Whether rewrite_by_lua runs before the directives of rewrite.", main_flag!(rewrite_first)),
        simple("access_by_lua_no_postpone", HTTP, Flag, "off", "Whether access_by_lua runs first in its phase.", main_flag!(access_first)),
        simple("precontent_by_lua_no_postpone", HTTP, Flag, "off", "Whether precontent_by_lua runs before try_files.", main_flag!(precontent_first)),
        simple("lua_ssl_protocols", hsl, AtLeast(1), "TLSv1.2 TLSv1.3", "The versions that sslhandshake speaks: TLSv1.2, TLSv1.3.", |b, n| { let v = protocols(b, n)?; n.set_once(&mut b.conf::<LuaLocation>().ssl_protocols, v) }),
        simple("lua_ssl_ciphers", hsl, Exactly(1), "DEFAULT", "OpenSSL's list of ciphers for TLS 1.2.", |b, n| { let v = ciphers(b, n)?; n.set_once(&mut b.conf::<LuaLocation>().ssl_ciphers, v) }),
        simple("lua_ssl_verify_depth", hsl, Exactly(1), "1", "How many certificates may lie between a server's and its authority's.", location!(ssl_verify_depth, |n: &Node| n.number(0))),
        simple("lua_ssl_trusted_certificate", hsl, Exactly(1), "", "The file of the authorities that sslhandshake trusts.", location!(ssl_trusted_certificate, |n: &Node| file(n).map(Some))),
        simple("lua_ssl_crl", hsl, Exactly(1), "", "The file of lists of revoked certificates of servers.", location!(ssl_crl, |n: &Node| file(n).map(Some))),
        simple("lua_ssl_certificate", hsl, Exactly(1), "", "The file of the certificate that sslhandshake shows.", location!(ssl_certificate, |n: &Node| file(n).map(Some))),
        simple("lua_ssl_certificate_key", hsl, Exactly(1), "", "The file of its key.", location!(ssl_certificate_key, |n: &Node| file(n).map(Some))),
        simple("lua_upstream_skip_openssl_default_verify", Contexts::LOCATION.union(Contexts::LOCATION_IF), Flag, "off", "Whether only proxy_ssl_verify_by_lua judges certificates of servers, without proxy_ssl_trusted_certificate.", |b, n| { let v = n.flag(0)?; n.set_once(&mut b.conf::<UpstreamHooks>().skips_default, v) }),
        simple("lua_ssl_key_log", hsl, Exactly(1), "", "The file that the secrets of sslhandshake's connections are appended to. Whoever reads it reads the connections.", location!(ssl_key_log, |n: &Node| file(n).map(Some))),
        simple("lua_capture_error_log", HTTP, Exactly(1), "", "The size of the buffer of error log lines for ngx.errlog.", |b, n| { let size = n.size(0)?; if size < 4096 { return Err(n.error(format!("invalid capture error log size \"{}\", minimum size is 4096", n.args[0]))); } n.set_once(&mut b.state::<LuaMain>().captured_bytes_max, size) }),
        simple("lua_max_pending_timers", HTTP, Exactly(1), "1024", "How many timers may wait.", |b, n| { b.state::<LuaMain>().pending_timers_max = Some(n.number(0)?); Ok(()) }),
        simple("lua_max_running_timers", HTTP, Exactly(1), "256", "How many timers may run.", |b, n| { b.state::<LuaMain>().running_timers_max = Some(n.number(0)?); Ok(()) }),
        simple("lua_regex_cache_max_entries", HTTP, Exactly(1), "1024", "How many compiled regexes a worker keeps.", |b, n| { b.state::<LuaMain>().regex_cache_max = Some(n.number(0)?); Ok(()) }),
        simple("lua_regex_match_limit", HTTP, Exactly(1), "0", "How hard a match may try; 0 is the default.", |b, n| { b.state::<LuaMain>().regex_match_limit = Some(n.number(0)?); Ok(()) }),
        simple("thread_pool", Contexts::MAIN, Arity::Between(1, 3), "", "A pool of threads for ngx.run_worker_thread: name, threads=32, max_queue=65536.", set_thread_pool),
        simple("lua_max_running_time", HTTP, Exactly(1), "60s", "How long Lua code may run without waiting before it is ended by an error; 0 is no limit.", |b, n| { let ms = n.time_ms(0)?; n.set_once(&mut b.state::<LuaMain>().running_time_max_ms, ms) }),
        simple("lua_max_memory", HTTP, Exactly(1), "2g", "How much memory the Lua VM of a worker may hold; 0 is no limit.", |b, n| { let size = n.size(0)?; n.set_once(&mut b.state::<LuaMain>().memory_bytes_max, size) }),
        simple("lua_sa_restart", HTTP, Flag, "on", "Accepted without effect.", tuned),
        simple("lua_thread_cache_max_entries", HTTP, Exactly(1), "1024", "Accepted without effect.", tuned),
        simple("lua_malloc_trim", HTTP, Exactly(1), "1000", "Accepted without effect.", tuned),
        simple("lua_load_resty_core", HTTP, Flag, "on", "Accepted without effect.", tuned),
        simple("lua_worker_thread_vm_pool_size", HTTP, Exactly(1), "10", "Accepted without effect: each thread of a pool has a VM.", tuned),
    ]
}

/// `$prefix` and `${prefix}` stand for nginx's prefix.
fn prefixed(b: &Builder, n: &Node) -> Result<String, ConfError> {
    let prefix = b.paths.prefix.to_string_lossy();
    // As in nginx, the prefix ends with a slash.
    let prefix = format!("{}/", prefix.trim_end_matches('/'));
    Ok(n.text(0)?.replace("${prefix}", &prefix).replace("$prefix", &prefix))
}

/// `threads=` of a `thread_pool` where it is not given, as in nginx.
const POOL_THREADS: usize = 32;
/// `max_queue=`, likewise.
const POOL_QUEUE_MAX: usize = 65536;

fn set_thread_pool(b: &mut Builder, n: &Node) -> Result<(), ConfError> {
    let name = n.text(0)?.to_string();
    let (mut threads, mut queue) = (None, None);
    for i in 1..n.args.len() {
        let text = n.text(i)?.to_string();
        let slot = match text.split_once('=') {
            Some(("threads", value)) => (&mut threads, value),
            Some(("max_queue", value)) => (&mut queue, value),
            _ => return Err(n.error(format!("invalid parameter \"{text}\""))),
        };
        let value = slot.1.parse::<usize>().ok().filter(|v| *v > 0 || slot.1 == "0");
        *slot.0 = Some(value.ok_or_else(|| n.error(format!("invalid value \"{text}\"")))?);
    }
    let pools = &mut b.state::<LuaMain>().pool_settings;
    if pools.iter().any(|p| p.0 == name) {
        return Err(n.error(format!("duplicate thread pool \"{name}\"")));
    }
    let threads = threads.unwrap_or(POOL_THREADS);
    if threads == 0 {
        return Err(n.error("invalid threads value \"threads=0\""));
    }
    pools.push((name, threads, queue.unwrap_or(POOL_QUEUE_MAX)));
    Ok(())
}

/// Dictionaries by name; they outlive generations.
#[derive(Default)]
struct Dicts(Mutex<HashMap<String, Arc<Dict>>>);

fn set_dict(b: &mut Builder, n: &Node) -> Result<(), ConfError> {
    let name = n.text(0)?.to_string();
    let size = n.size(1).map_err(|_| n.error(format!("invalid lua shared dict size \"{}\"", n.args[1])))?;
    if size <= DICT_BYTES_MIN {
        return Err(n.error(format!("invalid lua shared dict size \"{}\"", n.args[1])));
    }
    if b.state::<LuaMain>().dicts.iter().any(|(known, _)| *known == name) {
        return Err(n.error(format!("lua_shared_dict \"{name}\" is already defined as \"{name}\"")));
    }
    let persistent = b.persistent.of::<Dicts>();
    let mut dicts = persistent.0.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes = usize::try_from(size).unwrap_or(usize::MAX);
    let dict = match dicts.get(&name) {
        Some(d) if d.capacity_bytes() == bytes => Arc::clone(d),
        _ => Arc::new(Dict::new(bytes, seed())),
    };
    dicts.insert(name.clone(), Arc::clone(&dict));
    drop(dicts);
    b.state::<LuaMain>().dicts.push((name, dict));
    Ok(())
}

/// A seed that clients cannot guess.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

fn set_variable(b: &mut Builder, n: &Node, code: Code, args: &[terrace_conf::Arg]) -> Result<(), ConfError> {
    let name = n.bytes(0)?;
    let Some(name) = name.strip_prefix(b"$").filter(|n| !n.is_empty()) else {
        return Err(n.error(format!("invalid variable name \"{}\"", n.args[0])));
    };
    let variable = b.vars.define_stored(name).map_err(|e| n.error(e))?;
    let args = args.iter().map(|a| Value::compile(b, a)).collect::<Result<_, _>>()?;
    let step = SetCode { code: Arc::new(code), variable, args };
    terrace_modules::rewrite::push_instruction(b, Arc::new(step));
    Ok(())
}

fn set_by_lua(b: &mut Builder, n: &Node) -> Result<(), ConfError> {
    let code = Code::inline(b, n, n.bytes(1)?.clone());
    set_variable(b, n, code, &n.args[2..])
}

fn set_by_lua_block(b: &mut Builder, n: &Node) -> Result<(), ConfError> {
    let code = Code::inline(b, n, n.raw()?.clone());
    set_variable(b, n, code, &[])
}

fn set_by_lua_file(b: &mut Builder, n: &Node) -> Result<(), ConfError> {
    let path = Value::compile(b, n.arg(1)?)?;
    let mut code = Code::file(b, n)?;
    code.source = crate::chunks::Source::File(path);
    set_variable(b, n, code, &n.args[2..])
}
