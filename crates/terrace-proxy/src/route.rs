//! How a connection goes: whom it speaks TLS to, where it comes from, whom a balancer says it is for. Only requests that
//! want the same may use a kept connection again.

use std::net::SocketAddr;
use std::rc::Rc;

use crate::proxy::tls::Secured;

/// What is special about a connection; most have none of it, and no `Route`.
pub(crate) struct Route {
    /// Whom TLS is spoken to.
    pub(crate) tls: Option<Secured>,
    /// The local address; port 0 is any.
    pub(crate) local: Option<SocketAddr>,
    /// The name that a balancer gave the peer.
    pub(crate) host: Option<Rc<str>>,
}

impl Route {
    /// `None` where nothing is special.
    pub(crate) fn new(
        tls: Option<Secured>,
        local: Option<SocketAddr>,
        host: Option<Rc<str>>,
    ) -> Option<Rc<Route>> {
        let is_special = tls.is_some() || local.is_some() || host.is_some();
        is_special.then(|| Rc::new(Route { tls, local, host }))
    }

    /// Whether a connection that was made the way `kept` does for `wanted`.
    pub(crate) fn fits(kept: Option<&Rc<Route>>, wanted: Option<&Rc<Route>>) -> bool {
        let (kept, wanted) = match (kept, wanted) {
            (None, None) => return true,
            (Some(kept), Some(wanted)) => (kept, wanted),
            _ => return false,
        };
        let is_same_host = match (&kept.host, &wanted.host) {
            (None, None) => true,
            (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
            _ => false,
        };
        is_same_host
            && kept.local == wanted.local
            && match (&kept.tls, &wanted.tls) {
                (None, None) => true,
                (Some(a), Some(b)) => a.is_same(b),
                _ => false,
            }
    }
}
