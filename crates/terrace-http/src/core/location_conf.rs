//! nginx core's settings of a location: as configured, and resolved for the request path.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use terrace_base::log::ErrorLog;
use terrace_conf::ConfError;
use terrace_net::dns::ResolverConf;
use terrace_regex::Regex;

use super::error_log::ErrorLogConf;
use super::error_page::ErrorPages;
use super::types::{Types, TypesConf};
use crate::conf::slots::{Merge, MergeContext, Slots};
use crate::vars::{VarIndex, VarTable};
use crate::{Builder, Request, Value, intern, settings};

settings! {
    /// Plain settings of nginx's core module, inherited from `http` to `location`.
    pub struct CoreLocationConf {
        /// `client_max_body_size`, bytes; 0 is no limit.
        client_max_body_size: u64 = 1024 * 1024,
        /// `client_body_buffer_size`, bytes.
        client_body_buffer_size: u64 = 16 * 1024,
        /// `client_body_in_file_only`.
        client_body_in_file_only: InFileOnly = InFileOnly::Off,
        /// `client_body_temp_path`.
        client_body_temp_path: PathBuf = PathBuf::from("client_body_temp"),
        /// `client_body_timeout`, ms.
        client_body_timeout: u64 = 60_000,
        /// `send_timeout`, ms.
        send_timeout: u64 = 60_000,
        /// `keepalive_timeout`, ms, and the seconds told to the client.
        keepalive_timeout: (u64, Option<u64>) = (75_000, None),
        /// `keepalive_requests`.
        keepalive_requests: u32 = 1000,
        /// `lingering_time`, ms.
        lingering_time: u64 = 30_000,
        /// `lingering_timeout`, ms.
        lingering_timeout: u64 = 5_000,
        /// `satisfy any`.
        satisfy_any: bool = false,
        /// `recursive_error_pages`.
        recursive_error_pages: bool = false,
        /// `server_tokens`.
        server_tokens: bool = true,
        /// `absolute_redirect`.
        absolute_redirect: bool = true,
        /// `server_name_in_redirect`.
        server_name_in_redirect: bool = false,
        /// `port_in_redirect`.
        port_in_redirect: bool = true,
        /// `log_not_found`.
        log_not_found: bool = true,
        /// `log_subrequest`.
        log_subrequest: bool = false,
        /// `etag`.
        etag: bool = true,
        /// `if_modified_since`.
        if_modified_since: IfModifiedSince = IfModifiedSince::Exact,
        /// `max_ranges`.
        max_ranges: u32 = u32::MAX,
        /// `default_type`.
        default_type: Bytes = Bytes::from_static(b"text/plain"),
        /// `resolver`.
        resolver: Option<Arc<ResolverConf>> = None,
        /// `resolver_timeout`, ms.
        resolver_timeout: u64 = 30_000,
        /// `root` or `alias`.
        root: Root = Root::html(),
    }
}

/// `client_body_in_file_only`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InFileOnly {
    /// Small bodies stay in memory.
    Off,
    /// Every body goes to a file, which is removed with the request.
    Clean,
    /// Every body goes to a file, which stays.
    Keep,
}

/// `if_modified_since`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfModifiedSince {
    /// The field is ignored.
    Off,
    /// Only the very same time counts as unmodified.
    Exact,
    /// The same time or an earlier one.
    Before,
}

/// Settings that do not pass from a location to those nested in it.
#[derive(Debug, Default)]
pub struct OwnConf {
    /// `internal`.
    pub internal: bool,
}

impl Merge for OwnConf {
    fn merge(&mut self, parent: &Self, context: MergeContext) {
        self.internal |= context.is_if && parent.internal;
    }
}

/// `root` or `alias`.
#[derive(Debug, Clone)]
pub struct Root {
    /// The directory (or for `alias` the path).
    pub path: Value,
    /// For `alias`: how much of the URI it replaces; `None` for `root`.
    pub alias: Option<Alias>,
    /// nginx's prefix, for relative paths that variables make.
    pub prefix: PathBuf,
}

/// What an `alias` replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alias {
    /// The location's prefix of this length.
    Prefix(usize),
    /// In a regex location: everything.
    Whole,
}

impl Root {
    fn html() -> Root {
        Root { path: Value::literal("html"), alias: None, prefix: PathBuf::new() }
    }
}

/// The regex of a regex location, to match again for its captures.
pub struct LocationPattern {
    /// The regex.
    pub regex: Arc<Regex>,
    /// Its named groups.
    pub names: Vec<(VarIndex, usize)>,
}

impl LocationPattern {
    /// With the variables its named groups set. `None` of them is common: then the captures found with the
    /// location do.
    pub(crate) fn of(regex: &Arc<Regex>, vars: &VarTable) -> LocationPattern {
        let names = regex.name_table().iter();
        let names = names.filter_map(|(n, g)| Some((vars.find(n.as_bytes())?, *g))).collect();
        LocationPattern { regex: Arc::clone(regex), names }
    }
}

/// The settings as the request path reads them.
pub struct CoreLocation {
    /// See [`CoreLocationConf`].
    pub client_max_body_bytes: u64,
    /// See [`CoreLocationConf`].
    pub client_body_buffer_bytes: usize,
    /// See [`CoreLocationConf`].
    pub client_body_in_file_only: InFileOnly,
    /// See [`CoreLocationConf`].
    pub client_body_temp_path: PathBuf,
    /// See [`CoreLocationConf`].
    pub client_body_timeout_ms: u64,
    /// See [`CoreLocationConf`].
    pub send_timeout_ms: u64,
    /// See [`CoreLocationConf`].
    pub keepalive_timeout_ms: u64,
    /// The second argument of `keepalive_timeout`, seconds.
    pub keepalive_header_secs: Option<u64>,
    /// See [`CoreLocationConf`].
    pub keepalive_requests: u32,
    /// See [`CoreLocationConf`].
    pub lingering_time_ms: u64,
    /// See [`CoreLocationConf`].
    pub lingering_timeout_ms: u64,
    /// See [`CoreLocationConf`].
    pub satisfy_any: bool,
    /// See [`CoreLocationConf`].
    pub recursive_error_pages: bool,
    /// See [`CoreLocationConf`].
    pub server_tokens: bool,
    /// See [`CoreLocationConf`].
    pub absolute_redirect: bool,
    /// See [`CoreLocationConf`].
    pub server_name_in_redirect: bool,
    /// See [`CoreLocationConf`].
    pub port_in_redirect: bool,
    /// See [`CoreLocationConf`].
    pub log_not_found: bool,
    /// See [`CoreLocationConf`].
    pub log_subrequest: bool,
    /// See [`CoreLocationConf`].
    pub etag: bool,
    /// See [`CoreLocationConf`].
    pub if_modified_since: IfModifiedSince,
    /// See [`CoreLocationConf`].
    pub max_ranges: u32,
    /// See [`CoreLocationConf`].
    pub default_type: Bytes,
    /// Who is asked for names; without it the system.
    pub resolver: Option<Arc<ResolverConf>>,
    /// See [`CoreLocationConf`].
    pub resolver_timeout_ms: u64,
    /// See [`CoreLocationConf`].
    pub root: Root,
    /// `internal`.
    pub internal: bool,
    /// A request for the location's name without its last slash is redirected; set by modules that proxy.
    pub auto_redirect: bool,
    /// `types`.
    pub types: Arc<Types>,
    /// `error_page`.
    pub error_pages: ErrorPages,
    /// `error_log`.
    pub error_log: Arc<ErrorLog>,
    /// Set for a regex location with named groups.
    pub captures: Option<LocationPattern>,
}

impl CoreLocation {
    /// Settings that all have their defaults.
    pub(crate) fn bare(log: Arc<ErrorLog>) -> CoreLocation {
        let none = OwnConf::default();
        Self::from(&CoreLocationConf::default(), &none, Arc::default(), ErrorPages::default(), log)
    }

    pub(crate) fn resolve(slots: &mut Slots, b: &mut Builder) -> Result<CoreLocation, ConfError> {
        let types = slots.of::<TypesConf>().resolve();
        let pages = slots.of::<ErrorPages>().clone();
        let log = slots.of::<ErrorLogConf>().open(b)?;
        let internal = OwnConf { internal: slots.of::<OwnConf>().internal };
        let conf = slots.of::<CoreLocationConf>();
        let mut core = Self::from(conf, &internal, types, pages, log);
        core.client_body_temp_path = b.full_path(&core.client_body_temp_path.to_string_lossy());
        core.root.prefix = b.paths.prefix.clone();
        Ok(core)
    }

    fn from(
        c: &CoreLocationConf,
        own: &OwnConf,
        types: Arc<Types>,
        error_pages: ErrorPages,
        error_log: Arc<ErrorLog>,
    ) -> CoreLocation {
        let (keepalive_timeout_ms, keepalive_header_secs) = c.keepalive_timeout();
        CoreLocation {
            client_max_body_bytes: c.client_max_body_size(),
            client_body_buffer_bytes: c.client_body_buffer_size() as usize,
            client_body_in_file_only: c.client_body_in_file_only(),
            client_body_temp_path: c.client_body_temp_path(),
            client_body_timeout_ms: c.client_body_timeout(),
            send_timeout_ms: c.send_timeout(),
            keepalive_timeout_ms,
            keepalive_header_secs,
            keepalive_requests: c.keepalive_requests(),
            lingering_time_ms: c.lingering_time(),
            lingering_timeout_ms: c.lingering_timeout(),
            satisfy_any: c.satisfy_any(),
            recursive_error_pages: c.recursive_error_pages(),
            server_tokens: c.server_tokens(),
            absolute_redirect: c.absolute_redirect(),
            server_name_in_redirect: c.server_name_in_redirect(),
            port_in_redirect: c.port_in_redirect(),
            log_not_found: c.log_not_found(),
            log_subrequest: c.log_subrequest(),
            etag: c.etag(),
            if_modified_since: c.if_modified_since(),
            max_ranges: c.max_ranges(),
            default_type: intern::text(&c.default_type()),
            resolver: c.resolver(),
            resolver_timeout_ms: c.resolver_timeout(),
            root: c.root(),
            internal: own.internal,
            auto_redirect: false,
            types,
            error_pages,
            error_log,
            captures: None,
        }
    }

    /// The file that `uri` names.
    pub fn filename(&self, r: &Request, uri: &[u8]) -> Vec<u8> {
        let mut out = self.root_path(r);
        match self.root.alias {
            None => out.extend_from_slice(uri),
            Some(Alias::Whole) if r.aliases_uri.get() => out.extend_from_slice(uri),
            Some(Alias::Whole) => {}
            Some(Alias::Prefix(n)) => out.extend_from_slice(uri.get(n..).unwrap_or_default()),
        }
        out
    }

    /// `$document_root`.
    pub fn root_path(&self, r: &Request) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        self.root.path.eval(r, &mut out);
        if out.first() != Some(&b'/') {
            let mut full = self.root.prefix.as_os_str().as_encoded_bytes().to_vec();
            if !full.ends_with(b"/") {
                full.push(b'/');
            }
            full.append(&mut out);
            out = full;
        }
        if self.root.alias.is_none() && out.ends_with(b"/") {
            out.pop();
        }
        out
    }
}
