//! Lists of names and values for Lua: request header fields, arguments. One call hands out a whole list, which Lua
//! copies into a table before it calls anything else.

use std::cell::RefCell;
use std::ffi::c_int;

/// The C declarations.
pub const DECLARATION: &str = "
typedef struct { const char *name; const char *value; int name_len; int value_len; } terrace_pair;
typedef struct { const terrace_pair *list; int count; int truncated; } terrace_pairs;
";

/// `value_len` of a name without a value.
const NO_VALUE: c_int = -1;

/// One name and its value (`terrace_pair`).
#[repr(C)]
pub struct Pair {
    name: *const u8,
    value: *const u8,
    name_len: c_int,
    value_len: c_int,
}

/// A list (`terrace_pairs`).
#[repr(C)]
pub struct Pairs {
    list: *const Pair,
    count: c_int,
    truncated: c_int,
}

/// A list in the making: the text of all, and where each begins.
#[derive(Default)]
pub struct PairList {
    text: Vec<u8>,
    /// While the list is made, the pointers are offsets into `text`.
    list: Vec<Pair>,
    /// Whether something was left out.
    pub truncated: bool,
}

impl PairList {
    /// Adds a pair whose parts are appended by these functions; without a value when `value` answers false.
    pub fn add(&mut self, name: impl FnOnce(&mut Vec<u8>), value: impl FnOnce(&mut Vec<u8>) -> bool) {
        let start = self.text.len();
        name(&mut self.text);
        let middle = self.text.len();
        let has_value = value(&mut self.text);
        let len = |n: usize| c_int::try_from(n).unwrap_or(0);
        let value_len = if has_value { len(self.text.len() - middle) } else { NO_VALUE };
        self.list.push(Pair {
            name: std::ptr::without_provenance(start),
            value: std::ptr::without_provenance(middle),
            name_len: len(middle - start),
            value_len,
        });
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }
}

thread_local! {
    static LIST: RefCell<PairList> = RefCell::default();
}

/// A buffer that grew beyond this is freed at the next use.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Lets `fill` make a list and points `out` at it. It lives until the next call of this.
///
/// # Safety
/// `out` must be null or point at a `terrace_pairs` of the caller.
pub unsafe fn give_pairs<R>(out: *mut Pairs, fill: impl FnOnce(&mut PairList) -> R) -> R {
    // Taken out while it is filled, as the scratch buffer is.
    let mut pairs =
        LIST.with(|l| l.try_borrow_mut().map(|mut l| std::mem::take(&mut *l)).unwrap_or_default());
    if pairs.text.capacity() > KEPT_BYTES_MAX {
        pairs = PairList::default();
    }
    pairs.text.clear();
    pairs.list.clear();
    pairs.truncated = false;
    let result = fill(&mut pairs);
    let base = pairs.text.as_ptr();
    for p in &mut pairs.list {
        p.name = base.wrapping_add(p.name.addr());
        p.value = base.wrapping_add(p.value.addr());
    }
    if !out.is_null() {
        let count = c_int::try_from(pairs.list.len()).unwrap_or(0);
        // SAFETY: the caller's promise; the buffers stay where they are when the Vecs move.
        unsafe {
            out.write(Pairs { list: pairs.list.as_ptr(), count, truncated: c_int::from(pairs.truncated) });
        }
    }
    LIST.with(|l| {
        if let Ok(mut l) = l.try_borrow_mut() {
            *l = pairs;
        }
    });
    result
}
