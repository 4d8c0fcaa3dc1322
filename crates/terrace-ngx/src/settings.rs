//! Settings of the Lua module.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use terrace_conf::{ConfError, Position};
use terrace_http::tls::client::ClientSettings;
use terrace_http::tls::values::Pem;
use terrace_http::{Builder, Generation, Merge, MergeContext, Request};
use terrace_net::tls::{CertificateDer, ClientOptions, ClientTls, Protocols, Trust};
use terrace_shdict::Dict;

use crate::chunks::Code;
use crate::threads::ThreadPool;

/// What the configuration says of Lua as a whole: filled while it is read, then kept by the generation.
#[derive(Default)]
pub struct LuaMain {
    /// How many directives have code.
    pub codes: usize,
    /// `lua_package_path`
    pub package_path: Option<String>,
    /// `lua_package_cpath`
    pub package_cpath: Option<String>,
    /// `init_by_lua*`
    pub init: Option<Code>,
    /// `init_worker_by_lua*`
    pub init_worker: Option<Code>,
    /// `exit_worker_by_lua*`
    pub exit_worker: Option<Code>,
    /// `lua_shared_dict`s, in order.
    pub dicts: Vec<(String, Arc<Dict>)>,
    /// `lua_code_cache off` anywhere.
    pub code_cache_off: bool,
    /// `lua_max_pending_timers`
    pub pending_timers_max: Option<usize>,
    /// `lua_max_running_timers`
    pub running_timers_max: Option<usize>,
    /// `lua_regex_cache_max_entries`
    pub regex_cache_max: Option<usize>,
    /// `lua_regex_match_limit`
    pub regex_match_limit: Option<u32>,
    /// `lua_max_running_time`, ms; 0 is no limit.
    pub running_time_max_ms: Option<u64>,
    /// `lua_max_memory`, bytes; 0 is no limit.
    pub memory_bytes_max: Option<u64>,
    /// `rewrite_by_lua_no_postpone`
    pub rewrite_first: Option<bool>,
    /// `access_by_lua_no_postpone`
    pub access_first: Option<bool>,
    /// `precontent_by_lua_no_postpone`
    pub precontent_first: Option<bool>,
    /// `thread_pool`s: name, threads, the longest queue.
    pub pool_settings: Vec<(String, usize, usize)>,
    /// The pools themselves.
    pub pools: Vec<ThreadPool>,
    /// `lua_capture_error_log`, bytes.
    pub captured_bytes_max: Option<u64>,
    /// nginx's prefix, for relative paths.
    pub prefix: PathBuf,
}

/// `lua_max_running_time`, where it is not set.
const RUNNING_TIME_MAX_MS: u64 = 60_000;
/// `lua_max_memory`, where it is not set.
const MEMORY_BYTES_MAX: u64 = 2 << 30;

impl LuaMain {
    /// What a VM outside the workers is made from.
    pub fn for_threads(&self) -> LuaMain {
        LuaMain {
            package_path: self.package_path.clone(),
            package_cpath: self.package_cpath.clone(),
            dicts: self.dicts.clone(),
            memory_bytes_max: self.memory_bytes_max,
            prefix: self.prefix.clone(),
            ..LuaMain::default()
        }
    }

    /// How long code may run without waiting.
    pub fn running_time_max(&self) -> Option<Duration> {
        let ms = self.running_time_max_ms.unwrap_or(RUNNING_TIME_MAX_MS);
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    /// How much memory a VM may hold, in bytes.
    pub fn vm_bytes_max(&self) -> Option<usize> {
        let bytes = self.memory_bytes_max.unwrap_or(MEMORY_BYTES_MAX);
        (bytes > 0).then(|| usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// Of a generation.
    pub fn of(generation: &Generation) -> Arc<LuaMain> {
        generation.shared().unwrap_or_default()
    }
}

/// The `*_by_lua` code of a location. Each passes inwards unless the inner block has its own.
#[derive(Debug, Default)]
pub struct LuaCodes {
    /// `ssl_client_hello_by_lua*`
    pub ssl_client_hello: Option<Arc<Code>>,
    /// `ssl_certificate_by_lua*`
    pub ssl_certificate: Option<Arc<Code>>,
    /// `ssl_session_fetch_by_lua*`
    pub ssl_session_fetch: Option<Arc<Code>>,
    /// `ssl_session_store_by_lua*`
    pub ssl_session_store: Option<Arc<Code>>,
    /// `server_rewrite_by_lua*`
    pub server_rewrite: Option<Arc<Code>>,
    /// `rewrite_by_lua*`
    pub rewrite: Option<Arc<Code>>,
    /// `access_by_lua*`
    pub access: Option<Arc<Code>>,
    /// `precontent_by_lua*`
    pub precontent: Option<Arc<Code>>,
    /// `content_by_lua*`: does not pass inwards, but for `if` blocks.
    pub content: Option<Arc<Code>>,
    /// `header_filter_by_lua*`
    pub header_filter: Option<Arc<Code>>,
    /// `body_filter_by_lua*`
    pub body_filter: Option<Arc<Code>>,
    /// `log_by_lua*`
    pub log: Option<Arc<Code>>,
}

impl Merge for LuaCodes {
    fn merge(&mut self, parent: &Self, context: MergeContext) {
        let take = |mine: &mut Option<Arc<Code>>, theirs: &Option<Arc<Code>>| {
            if mine.is_none() {
                mine.clone_from(theirs);
            }
        };
        take(&mut self.ssl_client_hello, &parent.ssl_client_hello);
        take(&mut self.ssl_certificate, &parent.ssl_certificate);
        take(&mut self.ssl_session_fetch, &parent.ssl_session_fetch);
        take(&mut self.ssl_session_store, &parent.ssl_session_store);
        take(&mut self.server_rewrite, &parent.server_rewrite);
        take(&mut self.rewrite, &parent.rewrite);
        take(&mut self.access, &parent.access);
        take(&mut self.precontent, &parent.precontent);
        take(&mut self.header_filter, &parent.header_filter);
        take(&mut self.body_filter, &parent.body_filter);
        take(&mut self.log, &parent.log);
        if context.is_if {
            take(&mut self.content, &parent.content);
        }
    }
}

/// How a response begins that a script makes.
#[derive(Debug, Clone, Copy)]
pub struct ResponseStart {
    /// `lua_use_default_type`
    pub use_default_type: bool,
    /// `lua_http10_buffering`
    pub http10_buffering: bool,
}

impl ResponseStart {
    /// By these settings.
    pub fn of(settings: &LuaLocation) -> ResponseStart {
        ResponseStart {
            use_default_type: settings.use_default_type(),
            http10_buffering: settings.http10_buffering(),
        }
    }

    /// By the settings of the request's location.
    pub fn at(r: &Request) -> ResponseStart {
        match r.settings() {
            Some(settings) => ResponseStart::of(settings),
            None => ResponseStart { use_default_type: true, http10_buffering: true },
        }
    }

    /// Prepares the response, unless it has begun.
    pub fn apply(self, r: &Request) {
        if r.output.is_started() {
            return;
        }
        if self.use_default_type && r.headers_out.status.get() != 304 {
            r.set_default_type();
        }
        if !self.http10_buffering {
            r.output.hold_back.set(false);
        }
    }
}

/// How scripts of a location speak TLS to others.
#[derive(Clone)]
pub struct LuaTls {
    unchecked: ClientTls,
    checked: ClientTls,
    options: ClientSettings,
}

/// A location's [`LuaTls`].
#[derive(Default)]
pub struct LuaTlsConf(pub Option<Arc<LuaTls>>);

impl Merge for LuaTlsConf {
    fn merge(&mut self, _: &Self, _: MergeContext) {}
}

impl LuaTls {
    /// From what directives say.
    ///
    /// # Errors
    /// A file that cannot be read, or settings that leave nothing to speak.
    pub fn new(b: &mut Builder, options: ClientSettings, at: &Position) -> Result<LuaTls, ConfError> {
        let unchecked = ClientSettings { verifies: false, ..options.clone() }.client(b, at)?;
        let checked = ClientSettings { verifies: true, ..options.clone() }.client(b, at)?;
        Ok(LuaTls { unchecked, checked, options })
    }

    fn of(r: &Request) -> Result<&Arc<LuaTls>, String> {
        let conf = r.settings::<LuaTlsConf>().and_then(|c| c.0.as_ref());
        conf.ok_or_else(|| "failed to create ssl connection".to_owned())
    }

    /// The client of a request's location.
    ///
    /// # Errors
    /// There is none.
    pub fn client(r: &Request, verifies: bool) -> Result<ClientTls, String> {
        let tls = LuaTls::of(r)?;
        Ok(if verifies { tls.checked.clone() } else { tls.unchecked.clone() })
    }

    /// The client of a request's location that trusts others than the configured authorities.
    ///
    /// # Errors
    /// There is none.
    pub fn trusting(r: &Request, authorities: &[CertificateDer<'static>]) -> Result<ClientTls, String> {
        let tls = LuaTls::of(r)?;
        let o = &tls.options;
        let trust = Trust::new(authorities, &[], o.depth)?;
        let options = ClientOptions {
            protocols: o.protocols,
            ciphers: o.ciphers.clone(),
            trust: Some(Arc::new(trust)),
            checks_signatures: true,
            identity: None,
            reuses_sessions: false,
            sends_name: true,
            key_log: tls.checked.key_log(),
        };
        ClientTls::new(options).map_err(|e| e.to_string())
    }
}

terrace_http::settings! {
    /// Plain settings of a location.
    pub struct LuaLocation {
        /// `lua_need_request_body`
        need_request_body: bool = false,
        /// `lua_socket_connect_timeout`, ms.
        socket_connect_timeout: u64 = 60_000,
        /// `lua_socket_send_timeout`, ms.
        socket_send_timeout: u64 = 60_000,
        /// `lua_socket_read_timeout`, ms.
        socket_read_timeout: u64 = 60_000,
        /// `lua_socket_keepalive_timeout`, ms.
        socket_keepalive_timeout: u64 = 60_000,
        /// `lua_socket_pool_size`
        socket_pool_size: usize = 30,
        /// `lua_socket_buffer_size`, bytes.
        socket_buffer_size: u64 = 4096,
        /// `lua_socket_log_errors`
        socket_log_errors: bool = true,
        /// `lua_transform_underscores_in_response_headers`
        transform_underscores: bool = true,
        /// `lua_use_default_type`
        use_default_type: bool = true,
        /// `lua_http10_buffering`
        http10_buffering: bool = true,
        /// `lua_check_client_abort`
        check_client_abort: bool = false,
        /// `lua_ssl_protocols`
        ssl_protocols: Protocols = Protocols::default(),
        /// `lua_ssl_ciphers`
        ssl_ciphers: String = "DEFAULT".to_owned(),
        /// `lua_ssl_verify_depth`
        ssl_verify_depth: usize = 1,
        /// `lua_ssl_trusted_certificate`
        ssl_trusted_certificate: Option<Pem> = None,
        /// `lua_ssl_crl`
        ssl_crl: Option<Pem> = None,
        /// `lua_ssl_certificate`
        ssl_certificate: Option<Pem> = None,
        /// `lua_ssl_certificate_key`
        ssl_certificate_key: Option<Pem> = None,
        /// `lua_ssl_key_log`
        ssl_key_log: Option<Pem> = None,
    }
}
