//! The request's header fields. They stay where the codec found them until a script changes one; only then are
//! they copied into a list of their own.

use std::cell::{Ref, RefCell};

use bytes::Bytes;
use terrace_http1::{Headers, KnownHeader};

/// One field that a script set or that was copied.
#[derive(Debug, Clone)]
pub struct Field {
    /// The name as sent or set.
    pub name: Bytes,
    /// The value.
    pub value: Bytes,
    /// The name's number, if the server knows it.
    pub id: Option<KnownHeader>,
}

impl Field {
    /// A field, its number looked up.
    pub fn new(name: Bytes, value: Bytes) -> Field {
        let id = KnownHeader::from_name(&name);
        Field { name, value, id }
    }
}

/// The header fields of a request.
#[derive(Debug, Default)]
pub struct HeadersIn {
    buf: Vec<u8>,
    sent: Headers,
    changed: RefCell<Option<Vec<Field>>>,
}

impl HeadersIn {
    /// The fields as the codec found them in `buf`.
    pub fn new(buf: Vec<u8>, sent: Headers) -> HeadersIn {
        HeadersIn { buf, sent, changed: RefCell::new(None) }
    }

    /// Fields of a subrequest or of a request that no client sent.
    pub fn from_fields(fields: Vec<Field>) -> HeadersIn {
        HeadersIn { changed: RefCell::new(Some(fields)), ..HeadersIn::default() }
    }

    /// The buffer that holds the head as sent.
    pub fn buffer(&self) -> &[u8] {
        &self.buf
    }

    /// Gives the buffer back for another request.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buf)
    }

    /// Calls `f` with the first value of a known field.
    pub fn with<R>(&self, id: KnownHeader, f: impl FnOnce(&[u8]) -> R) -> Option<R> {
        match &*self.changed.borrow() {
            None => self.sent.value(&self.buf, id).map(f),
            Some(fields) => fields.iter().find(|h| h.id == Some(id)).map(|h| f(&h.value)),
        }
    }

    /// A copy of the first value of a known field.
    pub fn value(&self, id: KnownHeader) -> Option<Vec<u8>> {
        self.with(id, <[u8]>::to_vec)
    }

    /// Whether a known field is there.
    pub fn has(&self, id: KnownHeader) -> bool {
        self.with(id, |_| ()).is_some()
    }

    /// Calls `f` with name and value of each field, in order.
    pub fn for_each(&self, mut f: impl FnMut(&[u8], &[u8], Option<KnownHeader>)) {
        match &*self.changed.borrow() {
            None => {
                self.sent.lines().iter().for_each(|l| f(l.name.of(&self.buf), l.value.of(&self.buf), l.id))
            }
            Some(fields) => fields.iter().for_each(|h| f(&h.name, &h.value, h.id)),
        }
    }

    /// Removes all fields of this name.
    pub fn remove(&self, name: &[u8]) {
        self.edit(|fields| fields.retain(|h| !h.name.eq_ignore_ascii_case(name)));
    }

    /// Replaces all fields of this name by one, which takes the place of the first.
    pub fn set(&self, name: &[u8], value: &[u8]) {
        let new = Field::new(Bytes::copy_from_slice(name), Bytes::copy_from_slice(value));
        self.edit(|fields| {
            let Some(at) = fields.iter().position(|h| h.name.eq_ignore_ascii_case(name)) else {
                fields.push(new);
                return;
            };
            fields[at] = new;
            let mut i = 0;
            fields.retain(|h| {
                i += 1;
                i - 1 <= at || !h.name.eq_ignore_ascii_case(name)
            });
        });
    }

    /// Appends a field, whatever is there.
    pub fn add(&self, name: &[u8], value: &[u8]) {
        let new = Field::new(Bytes::copy_from_slice(name), Bytes::copy_from_slice(value));
        self.edit(|fields| fields.push(new));
    }

    /// All fields, copied.
    pub fn to_fields(&self) -> Vec<Field> {
        self.edit(|_| ());
        Ref::map(self.changed.borrow(), |c| c.as_ref().unwrap_or(const { &Vec::new() })).clone()
    }

    fn edit(&self, f: impl FnOnce(&mut Vec<Field>)) {
        let mut changed = self.changed.borrow_mut();
        let fields = changed.get_or_insert_with(|| {
            let copy = |s: terrace_http1::Span| Bytes::copy_from_slice(s.of(&self.buf));
            self.sent
                .lines()
                .iter()
                .map(|l| Field { name: copy(l.name), value: copy(l.value), id: l.id })
                .collect()
        });
        f(fields);
    }
}
