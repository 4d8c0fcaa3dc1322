//! `cache_lock name { … }`: a lock service that is asked around each load, beside the leases of L2.

use std::sync::Arc;

use terrace_conf::{ConfError, Node};
use terrace_http::Builder;
use terrace_stores::{ZooKeeperLock, ZooKeeperOptions};

use super::{IN_LOCK, is_name};

/// A lock service as configured. It is not connected to.
#[derive(Clone)]
pub(super) struct LockSpec {
    pub(super) name: Arc<str>,
    pub(super) options: ZooKeeperOptions,
}

/// All lock services, in their order.
#[derive(Default)]
pub(super) struct Locks(pub(super) Vec<LockSpec>);

/// A block being read.
#[derive(Default)]
struct Draft {
    driver: Option<()>,
    servers: Vec<String>,
    path: Option<String>,
    session_timeout_ms: Option<u64>,
    timeout_ms: Option<u64>,
}

pub(super) fn set(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let name = node.text(0)?;
    if !is_name(name) {
        return Err(node.error(format!("invalid cache lock name \"{name}\"")));
    }
    if b.state::<Locks>().0.iter().any(|it| *it.name == *name) {
        return Err(node.error(format!("duplicate cache lock \"{name}\"")));
    }
    *b.state::<Draft>() = Draft::default();
    b.nested(IN_LOCK, node)?;
    let draft = std::mem::take(b.state::<Draft>());
    let missing = |what: &str| node.end_error(format!("no \"{what}\" in cache lock \"{name}\""));
    draft.driver.ok_or_else(|| missing("driver"))?;
    if draft.servers.is_empty() {
        return Err(missing("server"));
    }
    let defaults = ZooKeeperOptions::new(draft.servers.join(","));
    let options = ZooKeeperOptions {
        base: draft.path.unwrap_or(defaults.base),
        session_timeout_ms: draft.session_timeout_ms.unwrap_or(defaults.session_timeout_ms),
        timeout_ms: draft.timeout_ms.unwrap_or(defaults.timeout_ms),
        servers: defaults.servers,
    };
    let refused = |error| node.end_error(format!("cache lock \"{name}\": {error}"));
    ZooKeeperLock::new(options.clone()).map_err(refused)?;
    b.state::<Locks>().0.push(LockSpec { name: name.into(), options });
    Ok(())
}

pub(super) fn set_driver(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    node.one_of(0, &[("zookeeper", ())])?;
    node.set_once(&mut b.state::<Draft>().driver, ())
}

pub(super) fn set_server(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    for arg in &node.args {
        let server = arg.text()?.to_owned();
        b.state::<Draft>().servers.push(server);
    }
    Ok(())
}

pub(super) fn set_path(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    node.set_once(&mut b.state::<Draft>().path, node.text(0)?.to_owned())
}

pub(super) fn set_session_timeout(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    node.set_once(&mut b.state::<Draft>().session_timeout_ms, node.time_ms(0)?)
}

pub(super) fn set_timeout(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    node.set_once(&mut b.state::<Draft>().timeout_ms, node.time_ms(0)?)
}
