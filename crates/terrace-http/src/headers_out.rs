//! The response's header: status, the fields the server itself cares about, and all others in order.

use std::cell::{Cell, Ref, RefCell};

use bytes::Bytes;
use terrace_http1::{KnownHeader, NameSet};

pub use crate::headers_in::Field;

/// The header of a response in the making.
#[derive(Debug, Default)]
pub struct HeadersOut {
    /// The status; 0 until it is decided.
    pub status: Cell<u16>,
    /// A status line given whole by an upstream or script, such as `418 Short And Stout`.
    pub status_line: RefCell<Option<Bytes>>,
    /// `Content-Length`; `None` when unknown.
    pub content_length: Cell<Option<u64>>,
    /// `Content-Type`; `None` means none was set (see [`crate::Request::set_default_type`]).
    pub content_type: RefCell<Option<Bytes>>,
    /// `Last-Modified`, in seconds of Unix time.
    pub last_modified: Cell<Option<u64>>,
    /// Whether ranges may be served (`Accept-Ranges`).
    pub allow_ranges: Cell<bool>,
    /// Fields that the server would add by itself (`Server`, `Date`) and that are to be left out.
    pub omitted: Cell<NameSet>,
    fields: RefCell<Vec<Field>>,
}

/// A list with room for more fields is not kept for another request.
const FIELDS_KEPT_MAX: usize = 64;

impl HeadersOut {
    /// Forgets everything, for an error response in place of the one begun.
    pub fn clear(&self) {
        self.status.set(0);
        self.status_line.take();
        self.content_length.set(None);
        self.content_type.take();
        self.last_modified.set(None);
        self.allow_ranges.set(false);
        self.omitted.take();
        self.fields.borrow_mut().clear();
    }

    /// As [`HeadersOut::clear`], for another request; the list keeps its memory.
    pub(crate) fn recycle(&mut self) {
        let HeadersOut {
            status,
            status_line,
            content_length,
            content_type,
            last_modified,
            allow_ranges,
            omitted,
            fields,
        } = self;
        *status = Cell::new(0);
        *status_line.get_mut() = None;
        *content_length = Cell::new(None);
        *content_type.get_mut() = None;
        *last_modified = Cell::new(None);
        *allow_ranges = Cell::new(false);
        *omitted = Cell::default();
        let fields = fields.get_mut();
        if !fields.is_empty() {
            fields.clear();
            fields.shrink_to(FIELDS_KEPT_MAX);
        }
    }

    /// Forgets what describes the body, keeping the other fields.
    pub fn clear_body_fields(&self) {
        self.content_length.set(None);
        self.content_type.take();
        self.last_modified.set(None);
        self.allow_ranges.set(false);
        self.status_line.take();
        use KnownHeader::{AcceptRanges, ContentEncoding, ETag, LastModified};
        self.fields
            .borrow_mut()
            .retain(|f| !matches!(f.id, Some(AcceptRanges | ContentEncoding | ETag | LastModified)));
    }

    /// Appends a field.
    pub fn add(&self, name: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.fields.borrow_mut().push(Field::new(clean(name.into()), clean(value.into())));
    }

    /// Replaces all fields of this name by one, which takes the place of the first.
    pub fn set(&self, name: impl Into<Bytes>, value: impl Into<Bytes>) {
        let new = Field::new(clean(name.into()), clean(value.into()));
        let mut fields = self.fields.borrow_mut();
        let Some(first) = fields.iter().position(|f| f.name.eq_ignore_ascii_case(&new.name)) else {
            return fields.push(new);
        };
        let mut i = 0;
        fields.retain(|f| {
            i += 1;
            i - 1 <= first || !f.name.eq_ignore_ascii_case(&new.name)
        });
        fields[first] = new;
    }

    /// Has a field left out that the server would add by itself.
    pub fn omit(&self, id: KnownHeader) {
        self.omitted.set(self.omitted.get().with(id));
    }

    /// Removes all fields of this name.
    pub fn remove(&self, name: &[u8]) {
        self.fields.borrow_mut().retain(|f| !f.name.eq_ignore_ascii_case(name));
    }

    /// Calls `f` with the first value of a field.
    pub fn with<R>(&self, name: &[u8], f: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let fields = self.fields.borrow();
        fields.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| f(&h.value))
    }

    /// Whether a known field is in the list.
    pub fn has(&self, id: KnownHeader) -> bool {
        self.fields.borrow().iter().any(|f| f.id == Some(id))
    }

    /// Whether one of these fields is in the list.
    pub fn has_any(&self, names: NameSet) -> bool {
        self.fields.borrow().iter().any(|f| f.id.is_some_and(|id| names.has(id)))
    }

    /// Calls `f` with each field of the list, in order.
    pub fn for_each(&self, f: impl FnMut(&Field)) {
        self.fields.borrow().iter().for_each(f);
    }

    /// The list.
    pub(crate) fn fields(&self) -> Ref<'_, Vec<Field>> {
        self.fields.borrow()
    }

    /// The list, to change it.
    pub fn edit<R>(&self, f: impl FnOnce(&mut Vec<Field>) -> R) -> R {
        f(&mut self.fields.borrow_mut())
    }
}

/// Line ends and NULs, with which a value would begin a field of its own, become spaces.
pub fn clean(text: Bytes) -> Bytes {
    if memchr::memchr3(b'\r', b'\n', 0, &text).is_none() {
        return text;
    }
    text.iter().map(|b| if matches!(b, b'\r' | b'\n' | 0) { b' ' } else { *b }).collect()
}
