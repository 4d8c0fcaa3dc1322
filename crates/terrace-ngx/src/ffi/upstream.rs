//! The `upstream` blocks and their peers in this worker, for the module `ngx.upstream`.

use std::ffi::c_int;
use std::fmt::Write;

use terrace_proxy::groups;
use terrace_upstream::PeerIndex;

use super::{DONE, NO_REQUEST, NOT_FOUND, Text, bytes, functions, give};
use crate::host::current;

functions! {
    "int (*upstream_names)(terrace_text *)" => names,
    "int (*upstream_peers)(const char *, size_t, terrace_text *)" => peers,
    "int (*upstream_set_down)(const char *, size_t, int, int, int)" => set_down,
}

/// There is a block, but no such peer.
const NO_PEER: c_int = -2;

/// The blocks' names, a line each.
extern "C" fn names(out: *mut Text) -> c_int {
    let Some(names) = current(|h| groups::names(h.request.generation())) else { return NO_REQUEST };
    // SAFETY: a text of Lua's.
    unsafe { give(out, |text| text.extend_from_slice(names.join("\n").as_bytes())) };
    DONE
}

/// A block's peers, a line each: whether it is a backup, whether it is down, weight, current and effective weight, failures,
/// the most failures, their window in seconds, connections, address, and the `server` it came of, with tabs between.
extern "C" fn peers(name: *const u8, len: usize, out: *mut Text) -> c_int {
    // SAFETY: a Lua string.
    let name = String::from_utf8_lossy(unsafe { bytes(name, len) });
    let Some(worker) = current(|h| h.request.worker.clone()) else { return NO_REQUEST };
    let mut rows = String::new();
    let is_found = groups::visit(&worker, &name, |peer| {
        let spec = peer.spec();
        // Writing to a string does not fail.
        let _ = writeln!(
            rows,
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
            u8::from(spec.backup),
            u8::from(spec.down),
            spec.weight,
            peer.current_weight(),
            peer.effective_weight(),
            peer.fails(),
            spec.max_fails,
            spec.fail_timeout_ms / 1000,
            peer.conns(),
            spec.name,
            spec.server
        );
    });
    if !is_found {
        return NOT_FOUND;
    }
    // SAFETY: a text of Lua's.
    unsafe { give(out, |text| text.extend_from_slice(rows.as_bytes())) };
    DONE
}

extern "C" fn set_down(name: *const u8, len: usize, backup: c_int, id: c_int, down: c_int) -> c_int {
    // SAFETY: a Lua string.
    let name = String::from_utf8_lossy(unsafe { bytes(name, len) });
    let Some(worker) = current(|h| h.request.worker.clone()) else { return NO_REQUEST };
    let Ok(position) = usize::try_from(id) else { return NO_PEER };
    match groups::set_down(&worker, &name, PeerIndex { backup: backup != 0, position }, down != 0) {
        None => NOT_FOUND,
        Some(false) => NO_PEER,
        Some(true) => DONE,
    }
}
