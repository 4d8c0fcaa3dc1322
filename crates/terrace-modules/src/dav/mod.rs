//! `dav_methods`: PUT, DELETE, MKCOL, COPY and MOVE on the files that URIs name (nginx's DAV module).
//!
//! The work on files is done on threads of its own (`files`, `tree`), so that a large one holds up no other request. No
//! path leads out of the location's directory (`paths`).

mod files;
mod paths;
#[cfg(test)]
mod tests;
mod tree;

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use terrace_base::http_date;
use terrace_base::log::Level;
use terrace_conf::{Arg, Arity, ConfError, Directive, Node};
use terrace_http::body::Stored;
use terrace_http::conf::table::{HSL, flag, simple};
use terrace_http::{
    Builder, Handler, LocationBuilder, Module, Outcome, Phase, Request, Step, setting, settings, special,
    status,
};
use terrace_http1::{Framing, KnownHeader};

use files::{Body, Notes, Put, Transfer};
use paths::Depth;

/// The module.
pub struct Dav;

settings! {
    /// The directives.
    struct Conf {
        /// `dav_methods`.
        methods: Methods = Methods::default(),
        /// `create_full_put_path`.
        creates_path: bool = false,
        /// `min_delete_depth`.
        delete_depth_min: usize = 0,
        /// `dav_access`, as the bits of a file's mode.
        access: u32 = 0o600,
    }
}

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    simple("dav_methods", HSL, Arity::AtLeast(1), "off", "The methods that change files: put, delete, mkcol, copy, move.", setting!(Conf, methods, Methods::read)),
    simple("create_full_put_path", HSL, Arity::Flag, "off", "Whether PUT makes the directories that its file needs.", setting!(Conf, creates_path, flag)),
    simple("min_delete_depth", HSL, Arity::Exactly(1), "0", "How many elements the path of a DELETE must have.", setting!(Conf, delete_depth_min, |n: &Node| n.number(0))),
    simple("dav_access", HSL, Arity::Between(1, 3), "user:rw", "Who may read and write new files and directories.", setting!(Conf, access, access)),
];

impl Module for Dav {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        let conf = location.settings.of::<Conf>();
        let settings = Settings {
            methods: conf.methods(),
            creates_path: conf.creates_path(),
            delete_depth_min: conf.delete_depth_min(),
            access: conf.access(),
        };
        if settings.methods != Methods::default() {
            location.add(Phase::Content, DavHandler(Arc::new(settings)));
        }
        Ok(())
    }
}

/// `user:rw`, `group:r`, `all:r`; the user may read and write unless it is said otherwise.
fn access(node: &Node) -> Result<u32, ConfError> {
    let (mut mode, mut user) = (0, 0o600);
    for arg in &node.args {
        let bits = |arg: &Arg| {
            let at = memchr::memchr(b':', &arg.value)?;
            let shift = match &arg.value[..at] {
                b"user" => 6,
                b"group" => 3,
                b"all" => 0,
                _ => return None,
            };
            match &arg.value[at + 1..] {
                b"rw" => Some((shift, 6 << shift)),
                b"r" => Some((shift, 4 << shift)),
                _ => None,
            }
        };
        let (shift, bits) = bits(arg).ok_or_else(|| node.error(format!("invalid value \"{arg}\"")))?;
        if shift == 6 {
            user = 0;
        }
        mode |= bits;
    }
    Ok(mode | user)
}

/// A method that changes files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Put = 1,
    Delete = 2,
    MakeCollection = 4,
    Copy = 8,
    Move = 16,
}

/// Some of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Methods(u8);

impl Methods {
    fn read(node: &Node) -> Result<Methods, ConfError> {
        let words = [
            ("off", 0),
            ("put", Method::Put as u8),
            ("delete", Method::Delete as u8),
            ("mkcol", Method::MakeCollection as u8),
            ("copy", Method::Copy as u8),
            ("move", Method::Move as u8),
        ];
        let mut all = 0;
        for i in 0..node.args.len() {
            all |= node.one_of(i, &words)?;
        }
        Ok(Methods(all))
    }

    fn find(self, name: &[u8]) -> Option<Method> {
        let method = match name {
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"MKCOL" => Method::MakeCollection,
            b"COPY" => Method::Copy,
            b"MOVE" => Method::Move,
            _ => return None,
        };
        (self.0 & method as u8 != 0).then_some(method)
    }
}

struct Settings {
    methods: Methods,
    creates_path: bool,
    delete_depth_min: usize,
    access: u32,
}

struct DavHandler(Arc<Settings>);

impl Handler for DavHandler {
    fn handle(&self, r: &Rc<Request>) -> Step {
        let Some(method) = self.0.methods.find(&r.method()) else { return Outcome::Declined.into() };
        let (s, r) = (Arc::clone(&self.0), Rc::clone(r));
        Step::wait(async move {
            let done = match method {
                Method::Put => put(&s, &r).await,
                Method::Delete => delete(&s, &r).await,
                Method::MakeCollection => make_collection(&s, &r).await,
                Method::Copy => transfer(&s, &r, false).await,
                Method::Move => transfer(&s, &r, true).await,
            };
            match done {
                Ok(status) => {
                    r.headers_out.status.set(status);
                    r.headers_out.content_length.set(Some(0));
                    r.finish().get().await;
                    Outcome::Done
                }
                Err(status) => Outcome::Status(status),
            }
        })
    }
}

/// Does `work` on a thread of its own, and logs what it says.
fn run(
    r: &Rc<Request>,
    work: impl FnOnce(&mut Notes) -> Result<u16, u16> + Send + 'static,
) -> impl Future<Output = Result<u16, u16>> {
    let r = Rc::clone(r);
    async move {
        let done = tokio::task::spawn_blocking(move || {
            let mut notes = Notes::default();
            let done = work(&mut notes);
            (done, notes)
        });
        let Ok((done, notes)) = done.await else { return Err(status::INTERNAL) };
        notes.lines().for_each(|(level, text)| r.log(level, format_args!("{text}")));
        done
    }
}

fn refuse(r: &Request, status: u16, text: &str) -> u16 {
    r.log(Level::Error, format_args!("{text}"));
    status
}

fn has_body(r: &Request) -> bool {
    !matches!(r.body.framing(), Framing::None | Framing::Length(0))
}

async fn put(s: &Settings, r: &Rc<Request>) -> Result<u16, u16> {
    if r.uri().ends_with(b"/") {
        return Err(refuse(r, 409, "cannot PUT to a collection"));
    }
    if r.headers_in.has(KnownHeader::ContentRange) {
        return Err(refuse(r, 501, "PUT with range is unsupported"));
    }
    r.read_body().get().await?;
    let body = match &*r.body.stored().borrow() {
        Stored::Empty => Body::Bytes(Vec::new()),
        Stored::Memory(bytes) => Body::Bytes(bytes.clone()),
        Stored::File(file) => Body::File(file.path().to_owned()),
    };
    let put = Put {
        path: paths::of_uri(r, &r.uri())?,
        body,
        temp_path: r.location().core.client_body_temp_path.clone(),
        access: s.access,
        creates_path: s.creates_path,
        modified_secs: r.headers_in.with(KnownHeader::Date, http_date::parse).flatten(),
    };
    let status = run(r, move |notes| files::put(notes, put)).await?;
    if status == 201 {
        set_location(r);
    }
    Ok(status)
}

async fn delete(s: &Settings, r: &Rc<Request>) -> Result<u16, u16> {
    if has_body(r) {
        return Err(refuse(r, 415, "DELETE with body is unsupported"));
    }
    if let Err(depth) = paths::is_deep(&r.uri(), s.delete_depth_min) {
        return Err(refuse(r, 409, &format!("insufficient URI depth:{depth} to DELETE")));
    }
    let (path, depth, is_collection) = (paths::of_uri(r, &r.uri())?, Depth::of(r), r.uri().ends_with(b"/"));
    run(r, move |notes| files::delete(notes, path, is_collection, depth)).await
}

async fn make_collection(s: &Settings, r: &Rc<Request>) -> Result<u16, u16> {
    if has_body(r) {
        return Err(refuse(r, 415, "MKCOL with body is unsupported"));
    }
    if !r.uri().ends_with(b"/") {
        return Err(refuse(r, 409, "MKCOL can create a collection only"));
    }
    let (path, access) = (paths::of_uri(r, &r.uri())?, s.access);
    let status = run(r, move |notes| files::make_collection(notes, path, access)).await?;
    set_location(r);
    Ok(status)
}

async fn transfer(s: &Settings, r: &Rc<Request>, moves: bool) -> Result<u16, u16> {
    if has_body(r) {
        return Err(refuse(r, 415, "COPY and MOVE with body are unsupported"));
    }
    let destination = paths::destination(r)?;
    let uri = Bytes::copy_from_slice(&r.uri());
    let shown = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
    if uri.ends_with(b"/") != destination.uri.ends_with(b"/") {
        let text = format!(
            "both URI \"{}\" and \"Destination\" URI \"{}\" should be either collections or non-collections",
            shown(&uri),
            destination.sent
        );
        return Err(refuse(r, 409, &text));
    }
    match Depth::of(r) {
        Depth::None | Depth::Infinity => {}
        Depth::Zero if !moves => {}
        _ if moves => return Err(refuse(r, 400, "\"Depth\" header must be infinity")),
        _ => return Err(refuse(r, 400, "\"Depth\" header must be 0 or infinity")),
    }
    let transfer = Transfer {
        from: paths::of_uri(r, &uri)?,
        to: paths::of_uri(r, &destination.uri)?,
        moves,
        overwrites: paths::overwrites(r)?,
        access: s.access,
        uri: shown(&uri),
        destination: destination.sent,
    };
    run(r, move |notes| files::transfer(notes, transfer)).await
}

/// `Location` is the URI of what was made.
fn set_location(r: &Request) {
    let mut to = Vec::new();
    terrace_http1::uri::escape_path(&r.uri(), &mut to);
    special::set_location_header(r, &to);
}
