//! What `lua_ssl_*` directives make of a location.

use std::sync::Arc;

use terrace_conf::ConfError;
use terrace_http::tls::client::ClientSettings;
use terrace_http::{Builder, LocationBuilder};

use crate::settings::{LuaLocation, LuaMain, LuaTls, LuaTlsConf};

/// Prepares the TLS of a location's scripts, where there are scripts at all.
pub(super) fn prepare(b: &mut Builder, l: &mut LocationBuilder) -> Result<(), ConfError> {
    if b.state::<LuaMain>().codes == 0 {
        return Ok(());
    }
    let c = l.settings.of::<LuaLocation>();
    let identity = match (c.ssl_certificate(), c.ssl_certificate_key()) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (Some((name, at)), None) => {
            let text = format!("no \"lua_ssl_certificate_key\" is defined for certificate \"{name}\"");
            return Err(ConfError::at(&at, text));
        }
        _ => None,
    };
    let options = ClientSettings {
        protocols: c.ssl_protocols(),
        ciphers: c.ssl_ciphers(),
        verifies: false,
        checks_signatures: false,
        depth: c.ssl_verify_depth(),
        trusted: c.ssl_trusted_certificate(),
        crl: c.ssl_crl(),
        identity,
        reuses_sessions: false,
        sends_name: true,
        passphrases: None,
        key_log: c.ssl_key_log(),
    };
    let at = l.at.clone();
    let tls = LuaTls::new(b, options, &at)?;
    l.settings.of::<LuaTlsConf>().0 = Some(Arc::new(tls));
    Ok(())
}
