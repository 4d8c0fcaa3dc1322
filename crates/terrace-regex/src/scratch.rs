//! The memory a match needs, kept once for each thread: match data, match context, JIT stack and DFA workspace.
//!
//! Invariant: the pointers held here belong to this thread alone and are freed with it. No match calls back into Rust
//! (no callout is ever registered), so the scratch is never borrowed twice.

use std::cell::RefCell;
use std::ffi::c_int;
use std::ptr::{self, NonNull};

use pcre2_sys::{
    PCRE2_ERROR_NOMEMORY, pcre2_get_ovector_pointer_8, pcre2_jit_stack_8, pcre2_jit_stack_assign_8,
    pcre2_jit_stack_create_8, pcre2_jit_stack_free_8, pcre2_match_context_8, pcre2_match_context_create_8,
    pcre2_match_context_free_8, pcre2_match_data_8, pcre2_match_data_create_8, pcre2_match_data_free_8,
    pcre2_set_depth_limit_8, pcre2_set_heap_limit_8, pcre2_set_match_limit_8,
};

use crate::{Limits, MatchError};

/// The least a JIT stack may be bounded to, and what it starts with.
pub const JIT_STACK_BYTES_MIN: usize = 32 * 1024;
/// The bound of a thread's JIT stack unless [`set_jit_stack_bytes`] was called. Pages are taken only when a match needs
/// them.
pub const JIT_STACK_BYTES_DEFAULT: usize = 1024 * 1024;
/// The most [`set_jit_stack_bytes`] grants.
pub const JIT_STACK_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Words of workspace for the DFA algorithm; a pattern which needs more fails with `PCRE2_ERROR_DFA_WSSIZE`. OpenResty
/// has 100.
const DFA_WORKSPACE_LEN: usize = 1000;

/// Sets the bound of this thread's JIT stack (`ngx.re.opt("jit_stack_size", n)`), clamped to
/// [`JIT_STACK_BYTES_MIN`] and [`JIT_STACK_BYTES_MAX`]. Fails when the memory cannot be had; the old stack is kept then.
pub fn set_jit_stack_bytes(bytes: usize) -> Result<(), MatchError> {
    with(|scratch| scratch.replace_jit_stack(bytes.clamp(JIT_STACK_BYTES_MIN, JIT_STACK_BYTES_MAX)))
}

thread_local! {
    static SCRATCH: RefCell<Option<Scratch>> = const { RefCell::new(None) };
}

/// Runs `f` on the scratch of this thread, which is made at the first call.
pub(crate) fn with<T>(f: impl FnOnce(&mut Scratch) -> Result<T, MatchError>) -> Result<T, MatchError> {
    let no_memory = MatchError::new(PCRE2_ERROR_NOMEMORY);
    SCRATCH
        .try_with(|cell| {
            let mut slot = cell.try_borrow_mut().map_err(|_| no_memory)?;
            let scratch = match &mut *slot {
                Some(scratch) => scratch,
                empty => empty.insert(Scratch::new().ok_or(no_memory)?),
            };
            f(scratch)
        })
        .unwrap_or(Err(no_memory))
}

pub(crate) struct Scratch {
    context: NonNull<pcre2_match_context_8>,
    data: NonNull<pcre2_match_data_8>,
    /// How many pairs of offsets `data` has room for.
    pairs: usize,
    /// Null when none could be had: the JIT then uses 32 KiB of the machine stack.
    jit_stack: *mut pcre2_jit_stack_8,
    limits: Limits,
    dfa_workspace: Box<[c_int; DFA_WORKSPACE_LEN]>,
}

impl Scratch {
    /// Pairs of offsets in a new scratch: enough for nearly every expression.
    const PAIRS_DEFAULT: u32 = 16;

    fn new() -> Option<Self> {
        // SAFETY: a null general context asks for malloc and free.
        let context = NonNull::new(unsafe { pcre2_match_context_create_8(ptr::null_mut()) })?;
        // SAFETY: as above.
        let data = unsafe { pcre2_match_data_create_8(Self::PAIRS_DEFAULT, ptr::null_mut()) };
        let Some(data) = NonNull::new(data) else {
            // SAFETY: made above, freed once, not used again.
            unsafe { pcre2_match_context_free_8(context.as_ptr()) };
            return None;
        };
        let mut scratch = Self {
            context,
            data,
            pairs: Self::PAIRS_DEFAULT as usize,
            jit_stack: ptr::null_mut(),
            limits: Limits::default(),
            dfa_workspace: Box::new([0; DFA_WORKSPACE_LEN]),
        };
        scratch.apply_limits();
        // Without a stack of its own the JIT still works, with less room.
        let _ = scratch.replace_jit_stack(JIT_STACK_BYTES_DEFAULT);
        Some(scratch)
    }

    /// The match data, with room for `pairs` pairs of offsets, and the match context, with `limits` set.
    pub(crate) fn prepare(
        &mut self,
        pairs: usize,
        limits: Limits,
    ) -> Result<(*mut pcre2_match_data_8, *mut pcre2_match_context_8), MatchError> {
        if pairs > self.pairs {
            self.grow(pairs)?;
        }
        if limits != self.limits {
            self.limits = limits;
            self.apply_limits();
        }
        Ok((self.data.as_ptr(), self.context.as_ptr()))
    }

    /// The offsets of the last match, the first `pairs` pairs, as far as there is room for them.
    pub(crate) fn offsets(&self, pairs: usize) -> &[usize] {
        // SAFETY: `data` is live, and its vector holds `self.pairs` pairs, all initialised by a match or, when it was
        // shorter, by an earlier one: only pairs that the last match set are asked for.
        unsafe {
            let first = pcre2_get_ovector_pointer_8(self.data.as_ptr());
            std::slice::from_raw_parts(first, pairs.min(self.pairs) * 2)
        }
    }

    pub(crate) fn dfa_workspace(&mut self) -> (*mut c_int, usize) {
        (self.dfa_workspace.as_mut_ptr(), DFA_WORKSPACE_LEN)
    }

    fn grow(&mut self, pairs: usize) -> Result<(), MatchError> {
        let no_memory = MatchError::new(PCRE2_ERROR_NOMEMORY);
        let count = u32::try_from(pairs).map_err(|_| no_memory)?;
        // SAFETY: a null general context asks for malloc and free.
        let data = unsafe { pcre2_match_data_create_8(count, ptr::null_mut()) };
        let data = NonNull::new(data).ok_or(no_memory)?;
        // SAFETY: the old data is live and is replaced right below, so it is freed once.
        unsafe { pcre2_match_data_free_8(self.data.as_ptr()) };
        self.data = data;
        self.pairs = pairs;
        Ok(())
    }

    fn apply_limits(&mut self) {
        let context = self.context.as_ptr();
        // SAFETY: the context is live and only this thread uses it.
        unsafe {
            pcre2_set_match_limit_8(context, self.limits.match_limit);
            pcre2_set_depth_limit_8(context, self.limits.depth_limit);
            pcre2_set_heap_limit_8(context, self.limits.heap_limit_kib);
        }
    }

    fn replace_jit_stack(&mut self, bytes_max: usize) -> Result<(), MatchError> {
        // SAFETY: a null general context asks for malloc and free.
        let stack = unsafe { pcre2_jit_stack_create_8(JIT_STACK_BYTES_MIN, bytes_max, ptr::null_mut()) };
        if stack.is_null() {
            return Err(MatchError::new(PCRE2_ERROR_NOMEMORY));
        }
        // SAFETY: without a callback the data argument is the stack itself; the context then no longer refers to the old
        // stack, which is freed once (null is allowed). No match is running, since `self` is borrowed mutably.
        unsafe {
            pcre2_jit_stack_assign_8(self.context.as_ptr(), None, stack.cast());
            pcre2_jit_stack_free_8(self.jit_stack);
        }
        self.jit_stack = stack;
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: all three were made by this scratch, are owned by it alone and are not used afterwards.
        unsafe {
            pcre2_match_data_free_8(self.data.as_ptr());
            pcre2_match_context_free_8(self.context.as_ptr());
            pcre2_jit_stack_free_8(self.jit_stack);
        }
    }
}
