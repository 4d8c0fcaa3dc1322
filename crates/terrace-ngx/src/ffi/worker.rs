//! `ngx.worker.*` and `ngx.config.*`.

use std::cell::RefCell;
use std::ffi::c_int;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use terrace_http::worker::{AgentWanted, WorkerCount};

use super::{DONE, NO_REQUEST, Text, functions, give};
use crate::host::current;

functions! {
    "int (*worker_pid)(void)" => worker_pid,
    "int (*worker_id)(void)" => worker_id,
    "int (*worker_count)(void)" => worker_count,
    "int (*worker_exiting)(void)" => worker_exiting,
    "int (*config_prefix)(terrace_text *)" => config_prefix,
    "int (*master_pid)(void)" => master_pid,
    "int (*is_agent)(void)" => is_agent,
    "int (*want_agent)(void)" => want_agent,
    "int (*worker_leave)(void)" => worker_leave,
    "int (*vm_usage)(double *)" => vm_usage,
}

extern "C" fn worker_pid() -> c_int {
    c_int::try_from(std::process::id()).unwrap_or(0)
}

/// The process that holds the sockets; this one where there is no other.
extern "C" fn master_pid() -> c_int {
    let parent = std::os::unix::process::parent_id();
    let program = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let own = std::process::id();
    let is_ours = program(parent).is_some_and(|p| Some(p) == program(own));
    c_int::try_from(if is_ours { parent } else { own }).unwrap_or(0)
}

/// Four numbers: bytes the VM holds, bytes it may hold (0: any), allocations refused, runs ended for their time.
extern "C" fn vm_usage(out: *mut f64) -> c_int {
    current(|h| {
        let vm = &h.lua.vm;
        let numbers = [
            vm.memory_bytes() as f64,
            vm.memory_bytes_max().unwrap_or(0) as f64,
            vm.allocations_refused() as f64,
            vm.stretches_ended() as f64,
        ];
        // SAFETY: Lua passes an array of four numbers of its own.
        unsafe { out.copy_from_nonoverlapping(numbers.as_ptr(), numbers.len()) };
        DONE
    })
    .unwrap_or(NO_REQUEST)
}

/// The agent has no number.
extern "C" fn worker_id() -> c_int {
    let id = current(|h| h.request.worker.id).flatten();
    id.map_or(NO_REQUEST, |id| c_int::try_from(id).unwrap_or(0))
}

extern "C" fn is_agent() -> c_int {
    current(|h| c_int::from(h.request.worker.id.is_none())).unwrap_or(0)
}

extern "C" fn want_agent() -> c_int {
    current(|h| {
        if let Some(wanted) = h.request.generation().shared::<AgentWanted>() {
            wanted.set();
        }
        DONE
    })
    .unwrap_or(NO_REQUEST)
}

extern "C" fn worker_leave() -> c_int {
    current(|h| {
        h.request.worker.resign();
        DONE
    })
    .unwrap_or(NO_REQUEST)
}

extern "C" fn worker_count() -> c_int {
    current(|h| {
        let count = h.request.generation().shared::<WorkerCount>().map_or(1, |c| c.0);
        c_int::try_from(count).unwrap_or(c_int::MAX)
    })
    .unwrap_or(NO_REQUEST)
}

extern "C" fn worker_exiting() -> c_int {
    current(|h| c_int::from(h.request.worker.is_draining())).unwrap_or(0)
}

/// The prefix, with a slash at its end.
extern "C" fn config_prefix(out: *mut Text) -> c_int {
    let of_request = current(|h| h.request.generation().prefix.clone());
    let Some(prefix) = of_request.or_else(|| PREFIX.with_borrow(Clone::clone)) else { return NO_REQUEST };
    let prefix = prefix.as_os_str().as_bytes();
    // SAFETY: Lua passes a text of its own.
    unsafe {
        give(out, |b| {
            b.extend_from_slice(prefix);
            if !prefix.ends_with(b"/") {
                b.push(b'/');
            }
        });
    }
    DONE
}

thread_local! {
    static PREFIX: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// Sets the prefix that code on this thread sees where it runs for no request.
pub fn set_prefix(prefix: PathBuf) {
    PREFIX.set(Some(prefix));
}
