//! `tiered_cache name { … }`: how a cache keeps, serves and reloads values.

use std::sync::Arc;

use terrace_cache::Policy;
use terrace_conf::{ConfError, Node, Position};
use terrace_http::Builder;

use super::{IN_CACHE, is_name};

/// The smallest memory level: 64 KiB.
const MEMORY_BYTES_MIN: u64 = 64 * 1024;

/// A cache as configured.
#[derive(Clone)]
pub(super) struct CacheSpec {
    pub(super) name: Arc<str>,
    pub(super) policy: Policy,
    /// The name of its source, and where it stands.
    pub(super) source: Option<(String, Position)>,
}

/// All caches, in their order.
#[derive(Default)]
pub(super) struct Specs(pub(super) Vec<CacheSpec>);

/// A block being read.
#[derive(Default)]
struct Draft {
    memory_bytes: Option<u64>,
    ttl_ms: Option<u64>,
    jitter_percent: Option<u8>,
    negative_ttl_ms: Option<u64>,
    stale_while_revalidate_ms: Option<u64>,
    stale_if_error_ms: Option<u64>,
    error_retry_ms: Option<u64>,
    load_timeout_ms: Option<u64>,
    waiters_max: Option<usize>,
    loads_max: Option<usize>,
    source: Option<(String, Position)>,
}

pub(super) fn set(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let name = node.text(0)?;
    if !is_name(name) {
        return Err(node.error(format!("invalid tiered cache name \"{name}\"")));
    }
    if b.state::<Specs>().0.iter().any(|it| *it.name == *name) {
        return Err(node.error(format!("duplicate tiered cache \"{name}\"")));
    }
    *b.state::<Draft>() = Draft::default();
    b.nested(IN_CACHE, node)?;
    let draft = std::mem::take(b.state::<Draft>());
    let defaults = Policy::default();
    let policy = Policy {
        size_bytes_max: draft.memory_bytes.unwrap_or(defaults.size_bytes_max),
        ttl_ms: draft.ttl_ms.unwrap_or(defaults.ttl_ms),
        jitter_percent: draft.jitter_percent.unwrap_or(defaults.jitter_percent),
        negative_ttl_ms: draft.negative_ttl_ms.unwrap_or(defaults.negative_ttl_ms),
        stale_while_revalidate_ms: draft
            .stale_while_revalidate_ms
            .unwrap_or(defaults.stale_while_revalidate_ms),
        stale_if_error_ms: draft.stale_if_error_ms.unwrap_or(defaults.stale_if_error_ms),
        error_retry_ms: draft.error_retry_ms.unwrap_or(defaults.error_retry_ms),
        load_timeout_ms: draft.load_timeout_ms.unwrap_or(defaults.load_timeout_ms),
        waiters_per_key_max: draft.waiters_max.unwrap_or(defaults.waiters_per_key_max),
        loads_max: draft.loads_max.unwrap_or(defaults.loads_max),
        ..defaults
    };
    b.state::<Specs>().0.push(CacheSpec { name: name.into(), policy, source: draft.source });
    Ok(())
}

macro_rules! time {
    ($($set:ident $field:ident),* $(,)?) => {
        $(pub(super) fn $set(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
            node.set_once(&mut b.state::<Draft>().$field, node.time_ms(0)?)
        })*
    };
}

time! {
    set_negative_ttl negative_ttl_ms,
    set_stale_while_revalidate stale_while_revalidate_ms,
    set_stale_if_error stale_if_error_ms,
    set_error_retry error_retry_ms,
}

pub(super) fn set_memory(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let bytes = node.size(0)?;
    if bytes < MEMORY_BYTES_MIN {
        return Err(node.error(format!("\"memory\" must be at least {}k", MEMORY_BYTES_MIN / 1024)));
    }
    node.set_once(&mut b.state::<Draft>().memory_bytes, bytes)
}

pub(super) fn set_ttl(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let ms = above_zero(node, node.time_ms(0)?)?;
    node.set_once(&mut b.state::<Draft>().ttl_ms, ms)
}

pub(super) fn set_load_timeout(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let ms = above_zero(node, node.time_ms(0)?)?;
    node.set_once(&mut b.state::<Draft>().load_timeout_ms, ms)
}

pub(super) fn set_jitter(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let text = node.text(0)?;
    let percent = text.strip_suffix('%').filter(|it| it.bytes().all(|b| b.is_ascii_digit()));
    let percent = percent.and_then(|it| it.parse().ok()).filter(|it| *it <= 100);
    let Some(percent) = percent else {
        let error = node.error(format!("invalid value \"{text}\""));
        return Err(error.with_hint("it must be a share from 0% to 100%"));
    };
    node.set_once(&mut b.state::<Draft>().jitter_percent, percent)
}

pub(super) fn set_max_waiters(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let max = above_zero(node, node.number(0)?)? as usize;
    node.set_once(&mut b.state::<Draft>().waiters_max, max)
}

pub(super) fn set_max_loads(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let max = above_zero(node, node.number(0)?)? as usize;
    node.set_once(&mut b.state::<Draft>().loads_max, max)
}

pub(super) fn set_source(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let source = (node.text(0)?.to_owned(), node.at.clone());
    node.set_once(&mut b.state::<Draft>().source, source)
}

fn above_zero(node: &Node, value: u64) -> Result<u64, ConfError> {
    if value == 0 { Err(node.error(format!("\"{}\" must be above zero", node.name))) } else { Ok(value) }
}
