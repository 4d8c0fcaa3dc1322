//! `tiered_cache name { … }`: how a cache keeps, serves and reloads values.

use std::path::PathBuf;
use std::sync::Arc;

use terrace_cache::{OnChange, Policy};
use terrace_conf::{ConfError, Node, Position};
use terrace_http::Builder;

use super::{IN_CACHE, is_name};

/// The smallest memory level: 64 KiB.
pub(super) const MEMORY_BYTES_MIN: u64 = 64 * 1024;
/// How often a snapshot is written unless configured otherwise.
const SNAPSHOT_INTERVAL_MS: u64 = 60_000;

/// A name of something else in the configuration, and where it stands.
pub(super) type Named = Option<(String, Position)>;

/// A cache as configured.
#[derive(Clone)]
pub(super) struct CacheSpec {
    pub(super) name: Arc<str>,
    pub(super) policy: Policy,
    pub(super) source: Named,
    pub(super) l2: Named,
    pub(super) lock: Named,
    pub(super) files: Files,
}

/// The files of a cache.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Files {
    /// What L1 held when it was last written down, and how often that is done.
    pub(super) snapshot: Option<(PathBuf, u64)>,
    /// The keys that exist, one a line.
    pub(super) existing_keys: Option<PathBuf>,
}

/// All caches, in their order.
#[derive(Default)]
pub(super) struct Specs(pub(super) Vec<CacheSpec>);

/// A block being read.
#[derive(Default)]
struct Draft {
    policy: Policy,
    /// Directives that the block has had.
    seen: Vec<String>,
    source: Named,
    l2: Named,
    lock: Named,
    files: Files,
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
    let Draft { policy, source, l2, lock, files, .. } = std::mem::take(b.state::<Draft>());
    if lock.is_some() && l2.is_none() {
        let error = node.end_error(format!("tiered cache \"{name}\" has a \"lock\" and no \"l2\""));
        return Err(error.with_hint("the lock guards the loads of a fleet that shares an L2"));
    }
    b.state::<Specs>().0.push(CacheSpec { name: name.into(), policy, source, l2, lock, files });
    Ok(())
}

/// The draft, for a directive that may stand in the block once.
fn once<'b>(b: &'b mut Builder, node: &Node) -> Result<&'b mut Draft, ConfError> {
    let draft = b.state::<Draft>();
    if draft.seen.iter().any(|it| *it == *node.name) {
        return Err(node.duplicate());
    }
    draft.seen.push(node.name.to_string());
    Ok(draft)
}

macro_rules! policy {
    ($($set:ident $field:ident = |$node:ident| $value:expr;)*) => {
        $(pub(super) fn $set(b: &mut Builder, $node: &Node) -> Result<(), ConfError> {
            let value = $value;
            once(b, $node)?.policy.$field = value;
            Ok(())
        })*
    };
}

policy! {
    set_memory size_bytes_max = |node| memory(node)?;
    set_ttl ttl_ms = |node| above_zero(node, node.time_ms(0)?)?;
    set_jitter jitter_percent = |node| percent(node)?;
    set_negative_ttl negative_ttl_ms = |node| node.time_ms(0)?;
    set_stale_while_revalidate stale_while_revalidate_ms = |node| node.time_ms(0)?;
    set_stale_if_error stale_if_error_ms = |node| node.time_ms(0)?;
    set_error_retry error_retry_ms = |node| node.time_ms(0)?;
    set_load_timeout load_timeout_ms = |node| above_zero(node, node.time_ms(0)?)?;
    set_max_waiters waiters_per_key_max = |node| above_zero(node, node.number(0)?)? as usize;
    set_max_loads loads_max = |node| above_zero(node, node.number(0)?)? as usize;
    set_max_lookups lookups_max = |node| above_zero(node, node.number(0)?)? as usize;
    set_refresh_ahead refresh_ahead_percent = |node| percent(node)?;
    set_on_change on_change = |node| node.one_of(0, &[("drop", OnChange::Drop), ("refresh", OnChange::Refresh)])?;
    set_refresh_rate invalidation_refreshes_per_s = |node| per_second(node)?;
    set_l1_ttl l1_ttl_ms = |node| Some(above_zero(node, node.time_ms(0)?)?);
    set_l2_timeout l2_timeout_ms = |node| above_zero(node, node.time_ms(0)?)?;
    set_l2_retry l2_retry_ms = |node| above_zero(node, node.time_ms(0)?)?;
    set_l2_down_ttl l2_down_ttl_ms = |node| node.time_ms(0)?;
    set_lease lease_ms = |node| above_zero(node, node.time_ms(0)?)?;
    set_held_wait held_wait_ms = |node| node.time_ms(0)?;
    set_lock_wait lock_wait_ms = |node| node.time_ms(0)?;
}

macro_rules! named {
    ($($set:ident $field:ident),* $(,)?) => {
        $(pub(super) fn $set(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
            let named = (node.text(0)?.to_owned(), node.at.clone());
            once(b, node)?.$field = Some(named);
            Ok(())
        })*
    };
}

named! {
    set_source source,
    set_l2 l2,
    set_lock lock,
}

/// `snapshot file [interval=time]`
pub(super) fn set_snapshot(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let path = b.full_path(node.text(0)?);
    let mut interval_ms = SNAPSHOT_INTERVAL_MS;
    for param in node.params(1) {
        match param.name {
            b"interval" => interval_ms = above_zero(node, param.time_ms()?)?,
            _ => return Err(param.error()),
        }
    }
    once(b, node)?.files.snapshot = Some((path, interval_ms));
    Ok(())
}

pub(super) fn set_existing_keys(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let path = b.full_path(node.text(0)?);
    once(b, node)?.files.existing_keys = Some(path);
    Ok(())
}

fn memory(node: &Node) -> Result<u64, ConfError> {
    let bytes = node.size(0)?;
    if bytes < MEMORY_BYTES_MIN {
        return Err(node.error(format!("\"memory\" must be at least {}k", MEMORY_BYTES_MIN / 1024)));
    }
    Ok(bytes)
}

fn percent(node: &Node) -> Result<u8, ConfError> {
    let text = node.text(0)?;
    let percent = text.strip_suffix('%').filter(|it| it.bytes().all(|b| b.is_ascii_digit()));
    percent.and_then(|it| it.parse().ok()).filter(|it| *it <= 100).ok_or_else(|| {
        let error = node.error(format!("invalid value \"{text}\""));
        error.with_hint("it must be a share from 0% to 100%")
    })
}

/// A rate as nginx writes it: `100r/s`.
fn per_second(node: &Node) -> Result<u32, ConfError> {
    let text = node.text(0)?;
    let rate = text.strip_suffix("r/s").filter(|it| it.bytes().all(|b| b.is_ascii_digit()));
    rate.and_then(|it| it.parse().ok()).ok_or_else(|| {
        let error = node.error(format!("invalid rate \"{text}\""));
        error.with_hint("it must be a number of refreshes a second, such as 100r/s")
    })
}

fn above_zero(node: &Node, value: u64) -> Result<u64, ConfError> {
    if value == 0 { Err(node.error(format!("\"{}\" must be above zero", node.name))) } else { Ok(value) }
}
