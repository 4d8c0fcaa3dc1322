//! Texts of the configuration, kept once for the life of the process.
//!
//! What every response repeats (media types, literals of `return` and `add_header`) is cloned by all workers at once. A
//! reference count shared between them would be a contended atomic; bytes that live for ever need none. Equal texts
//! share one copy, so that a reload of the same file adds nothing.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use rustc_hash::FxHashSet;

/// All interned texts together take no more than this; later ones are counted references.
const BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(Default)]
struct Table {
    texts: Option<FxHashSet<&'static [u8]>>,
    bytes: usize,
}

static TABLE: Mutex<Table> = Mutex::new(Table { texts: None, bytes: 0 });

/// Bytes equal to `text` that are cloned without an atomic. For load time: it takes a lock.
pub fn text(text: &[u8]) -> Bytes {
    let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = table.texts.get_or_insert_default().get(text) {
        return Bytes::from_static(known);
    }
    if table.bytes + text.len() > BYTES_MAX {
        return Bytes::copy_from_slice(text);
    }
    let kept: &'static [u8] = Box::leak(text.into());
    table.bytes += kept.len();
    table.texts.get_or_insert_default().insert(kept);
    Bytes::from_static(kept)
}

#[cfg(test)]
mod tests {
    #[test]
    fn equal_texts_share_their_bytes() {
        let (a, b) = (super::text(b"text/x-interned"), super::text(b"text/x-interned"));
        assert_eq!(&a[..], b"text/x-interned");
        assert_eq!(a.as_ptr(), b.as_ptr());
    }
}
