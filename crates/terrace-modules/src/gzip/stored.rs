//! Sends a file's neighbour `.gz` in its place.

use std::rc::Rc;

use terrace_base::log::Level;
use terrace_http::{Handler, Outcome, Request, Step};
use terrace_http1::KnownHeader;

use super::accept::{Accept, CODING};
use super::name;
use crate::static_files;

/// The content handler.
pub(super) struct Serve {
    pub(super) accept: Accept,
    pub(super) always: bool,
}

impl Handler for Serve {
    fn handle(&self, r: &Rc<Request>) -> Step {
        let is_read = matches!(&r.method()[..], b"GET" | b"HEAD");
        if !is_read || r.uri().ends_with(b"/") {
            return Outcome::Declined.into();
        }
        let is_met = self.always || self.accept.is_met(r);
        if !is_met && !self.accept.vary {
            return Outcome::Declined.into();
        }
        let mut path = r.filename(&r.uri());
        path.extend_from_slice(b".gz");
        let Ok((file, meta)) = static_files::open_file(&path) else {
            return Outcome::Declined.into();
        };
        if !self.always {
            self.accept.vary(r);
        }
        if !is_met || meta.is_dir() {
            return Outcome::Declined.into();
        }
        if !meta.is_file() {
            let path = String::from_utf8_lossy(&path);
            r.log(Level::Crit, format_args!("\"{path}\" is not a regular file"));
            return Outcome::Status(404).into();
        }
        r.headers_out.set(name(KnownHeader::ContentEncoding), CODING);
        static_files::serve(r, file, &meta, path)
    }
}
