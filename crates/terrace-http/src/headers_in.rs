//! The request's header fields. They stay where the codec found them until a script changes one; only then are
//! they copied into a list of their own.

use std::cell::{Ref, RefCell};

use bytes::Bytes;
use terrace_http1::{KnownHeader, NameSet, RequestHead};

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

/// A head as sent, and the buffer it stands in. Boxed and pooled by the worker: it is large, and every request has one.
#[derive(Debug, Default)]
pub struct SentHead {
    /// The bytes. The whole length may be read into; what is behind the head is of no meaning.
    pub buf: Vec<u8>,
    /// What the codec found.
    pub head: RequestHead,
    /// How many bytes the head takes.
    pub len: usize,
}

/// The header fields of a request.
#[derive(Debug, Default)]
pub struct HeadersIn {
    sent: Option<Box<SentHead>>,
    changed: RefCell<Option<Vec<Field>>>,
}

impl HeadersIn {
    /// The fields as the codec found them.
    pub fn new(sent: Box<SentHead>) -> HeadersIn {
        HeadersIn { sent: Some(sent), changed: RefCell::new(None) }
    }

    /// Fields of a subrequest or of a request that no client sent.
    pub fn from_fields(fields: Vec<Field>) -> HeadersIn {
        HeadersIn { sent: None, changed: RefCell::new(Some(fields)) }
    }

    /// The buffer that holds the head as sent; empty where none was.
    pub fn buffer(&self) -> &[u8] {
        self.sent.as_ref().map_or(&[], |s| &s.buf)
    }

    /// The size of the head as sent, in bytes.
    pub fn head_bytes(&self) -> usize {
        self.sent.as_ref().map_or(0, |s| s.len)
    }

    /// Takes the fields of a head, where there are none.
    pub(crate) fn begin(&mut self, sent: Box<SentHead>) {
        debug_assert!(self.sent.is_none(), "a blank request has no fields");
        self.sent = Some(sent);
    }

    /// Forgets the fields and gives the head back, for another request.
    pub(crate) fn recycle(&mut self) -> Option<Box<SentHead>> {
        *self.changed.get_mut() = None;
        self.sent.take()
    }

    /// Calls `f` with the first value of a known field.
    pub fn with<R>(&self, id: KnownHeader, f: impl FnOnce(&[u8]) -> R) -> Option<R> {
        match &*self.changed.borrow() {
            None => self.sent.as_ref().and_then(|s| s.head.headers.value(&s.buf, id)).map(f),
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

    /// Whether one of these known fields is there.
    pub fn has_any(&self, names: NameSet) -> bool {
        match &*self.changed.borrow() {
            None => self.sent.as_ref().is_some_and(|s| s.head.headers.has_any(names)),
            Some(fields) => fields.iter().any(|h| h.id.is_some_and(|id| names.has(id))),
        }
    }

    /// Calls `f` with name and value of each field, in order.
    pub fn for_each(&self, mut f: impl FnMut(&[u8], &[u8], Option<KnownHeader>)) {
        match &*self.changed.borrow() {
            None => self.sent_fields().for_each(|(n, v, id)| f(n, v, id)),
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

    fn sent_fields(&self) -> impl Iterator<Item = (&[u8], &[u8], Option<KnownHeader>)> {
        let sent = self.sent.as_deref();
        let lines = sent.map_or(&[][..], |s| s.head.headers.lines());
        let buf = self.buffer();
        lines.iter().map(move |l| (l.name.of(buf), l.value.of(buf), l.id))
    }

    fn edit(&self, f: impl FnOnce(&mut Vec<Field>)) {
        let mut changed = self.changed.borrow_mut();
        let fields = changed.get_or_insert_with(|| {
            let copy = Bytes::copy_from_slice;
            self.sent_fields().map(|(n, v, id)| Field { name: copy(n), value: copy(v), id }).collect()
        });
        f(fields);
    }
}
