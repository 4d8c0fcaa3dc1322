//! nginx core's settings of a server.

use terrace_conf::{ConfError, Node};
use terrace_http1::HeadLimits;

use crate::conf::slots::{Merge, MergeContext};
use crate::server_names::Name;
use crate::{Builder, settings};

settings! {
    /// Settings that belong to `http` and `server`.
    pub struct CoreServerConf {
        /// `client_header_timeout`, ms.
        client_header_timeout: u64 = 60_000,
        /// `client_header_buffer_size`, bytes.
        client_header_buffer_size: u64 = 1024,
        /// `large_client_header_buffers`: number and bytes of each.
        large_client_header_buffers: (u32, u64) = (4, 8192),
        /// `merge_slashes`.
        merge_slashes: bool = true,
        /// `underscores_in_headers`.
        underscores_in_headers: bool = false,
        /// `ignore_invalid_headers`.
        ignore_invalid_headers: bool = true,
    }
}

/// The settings as the request path reads them.
pub struct CoreServer {
    /// The first `server_name`, for logs and redirects.
    pub first_name: String,
    /// See [`CoreServerConf`].
    pub client_header_timeout_ms: u64,
    /// See [`CoreServerConf`].
    pub merge_slashes: bool,
    /// What a head may have.
    pub head_limits: HeadLimits,
}

impl CoreServer {
    pub(crate) fn resolve(c: &CoreServerConf, names: &ServerNameConf) -> CoreServer {
        let (number, size) = c.large_client_header_buffers();
        CoreServer {
            first_name: names.first.clone(),
            client_header_timeout_ms: c.client_header_timeout(),
            merge_slashes: c.merge_slashes(),
            head_limits: HeadLimits {
                client_header_buffer_size: clamp(c.client_header_buffer_size()),
                large_client_header_buffers_number: number,
                large_client_header_buffers_size: clamp(size),
                ignore_invalid_headers: c.ignore_invalid_headers(),
                underscores_in_headers: c.underscores_in_headers(),
                ..HeadLimits::default()
            },
        }
    }

    /// The server's name: the first one configured.
    pub fn name(&self) -> &str {
        &self.first_name
    }
}

fn clamp(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// The `server_name`s of a server.
#[derive(Default)]
pub struct ServerNameConf {
    /// The names, in order; a server without any answers to the empty name.
    pub names: Vec<Name>,
    /// The first name as written.
    pub first: String,
}

impl Merge for ServerNameConf {
    fn merge(&mut self, _: &Self, _: MergeContext) {}
}

pub(super) fn set_server_name(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    for arg in &node.args {
        let text = arg.text()?;
        let name = if let Some(pattern) = text.strip_prefix('~') {
            if pattern.is_empty() {
                return Err(arg.error(format!("empty regex in server name \"{text}\"")));
            }
            // Names are matched in lower case, so a pattern with capitals would never match (nginx does the same).
            let (regex, names) = b.regex(pattern.as_bytes(), true, &arg.at)?;
            Name::Pattern(regex, names)
        } else {
            let lower = if text == "$hostname" { hostname() } else { text.to_ascii_lowercase() };
            check_wildcard(&lower).ok_or_else(|| {
                arg.error(format!("invalid server name or wildcard \"{text}\" on {}", node.name))
            })?;
            Name::Text(lower.into_bytes())
        };
        let conf = b.conf::<ServerNameConf>();
        if conf.names.is_empty() {
            conf.first = text.strip_prefix('.').unwrap_or(text).to_string();
        }
        conf.names.push(name);
    }
    Ok(())
}

/// An asterisk stands only at the start or the end, next to a dot.
fn check_wildcard(name: &str) -> Option<()> {
    let inner = name.strip_prefix("*.").or_else(|| name.strip_suffix(".*")).unwrap_or(name);
    (!inner.contains('*')).then_some(())
}

/// The machine's name in lower case (`$hostname`).
pub fn hostname() -> String {
    nix::unistd::gethostname().map(|h| h.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}
