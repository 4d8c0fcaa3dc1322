//! `index`: what answers for a directory.

use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;

use terrace_base::OsError;
use terrace_base::log::Level;
use terrace_conf::{Arity, ConfError, Directive, Node};
use terrace_http::conf::table::{HSL, simple};
use terrace_http::{
    Builder, Handler, LocationBuilder, Merge, MergeContext, Module, Outcome, Phase, Request, Step, Value,
};

use crate::file_test::{log_failed_stat, stat};

/// The module.
pub struct Index;

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    simple("index", HSL, Arity::AtLeast(1), "index.html", "The files that answer for a directory, in order of preference.", set_index),
];

impl Module for Index {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        let names = &location.settings.of::<IndexConf>().0;
        let names = match names.as_slice() {
            [] => Arc::from([Value::literal(&b"index.html"[..])]),
            names => names.into(),
        };
        location.add(Phase::Content, IndexHandler(names));
        Ok(())
    }
}

/// The names of a block; a block that has any does not inherit.
#[derive(Default)]
struct IndexConf(Vec<Value>);

impl Merge for IndexConf {
    fn merge(&mut self, parent: &Self, _: MergeContext) {
        if self.0.is_empty() {
            self.0.clone_from(&parent.0);
        }
    }
}

fn set_index(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    for (i, arg) in node.args.iter().enumerate() {
        if arg.value.is_empty() {
            return Err(node.error(format!("index \"{arg}\" in \"index\" directive is invalid")));
        }
        if arg.value.starts_with(b"/") && i + 1 < node.args.len() {
            b.warn(&node.at, "only the last index in \"index\" directive should be absolute");
        }
        let name = Value::compile(b, arg)?;
        b.conf::<IndexConf>().0.push(name);
    }
    Ok(())
}

struct IndexHandler(Arc<[Value]>);

impl Handler for IndexHandler {
    fn handle(&self, r: &Rc<Request>) -> Step {
        if !r.uri().ends_with(b"/") || !matches!(&r.method()[..], b"GET" | b"HEAD" | b"POST") {
            return Step::Ready(Outcome::Declined);
        }
        Step::Ready(self.find(r))
    }
}

impl IndexHandler {
    fn find(&self, r: &Request) -> Outcome {
        let mut path = Vec::new();
        let mut dir_len = None;
        let mut dir_tested = false;
        for name in self.0.iter() {
            let len = *dir_len.get_or_insert_with(|| {
                path = r.filename(&r.uri());
                path.len()
            });
            path.truncate(len);
            name.eval(r, &mut path);
            let file = &path[len..];
            let args = r.args().to_vec();
            if file.first() == Some(&b'/') {
                r.redirect_to_uri(file.to_vec(), args);
                return Outcome::Redirected;
            }
            match stat(&path) {
                Ok(_) => {
                    let mut uri = r.uri().to_vec();
                    uri.extend_from_slice(file);
                    r.redirect_to_uri(uri, args);
                    return Outcome::Redirected;
                }
                Err(e) => {
                    let tested = std::mem::replace(&mut dir_tested, true);
                    if let Some(outcome) = refuse(r, &path, len, &e, tested) {
                        return outcome;
                    }
                }
            }
        }
        Outcome::Declined
    }
}

/// What an index file that cannot be had means: `None` tries the next one.
fn refuse(r: &Request, path: &[u8], dir_len: usize, error: &io::Error, dir_tested: bool) -> Option<Outcome> {
    match error.kind() {
        ErrorKind::NotADirectory | ErrorKind::InvalidFilename | ErrorKind::PermissionDenied => {
            return Some(missing(r, path, error));
        }
        _ if dir_tested => {}
        _ => {
            // An `alias` without a slash at its end is a directory as it stands.
            let dir = path[..dir_len].strip_suffix(b"/").filter(|d| !d.is_empty());
            if let Some(outcome) = test_dir(r, dir.unwrap_or(&path[..dir_len])) {
                return Some(outcome);
            }
        }
    }
    if error.kind() == ErrorKind::NotFound {
        return None;
    }
    log_failed_stat(r, path, error);
    Some(Outcome::Status(500))
}

/// `None` for a directory.
fn test_dir(r: &Request, dir: &[u8]) -> Option<Outcome> {
    match stat(dir) {
        Ok(m) if m.is_dir() => None,
        Ok(_) => {
            let dir = String::from_utf8_lossy(dir);
            r.log(Level::Alert, format_args!("\"{dir}\" is not a directory"));
            Some(Outcome::Status(500))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Some(missing(r, dir, &e)),
        // The files in it could be looked for, so it is there.
        Err(e) if e.kind() == ErrorKind::PermissionDenied => None,
        Err(e) => {
            log_failed_stat(r, dir, &e);
            Some(Outcome::Status(500))
        }
    }
}

fn missing(r: &Request, path: &[u8], error: &io::Error) -> Outcome {
    let path = String::from_utf8_lossy(path);
    if error.kind() == ErrorKind::PermissionDenied {
        r.log(Level::Error, format_args!("\"{path}\" is forbidden {}", OsError(error)));
        return Outcome::Status(403);
    }
    if r.location().core.log_not_found {
        r.log(Level::Error, format_args!("\"{path}\" is not found {}", OsError(error)));
    }
    Outcome::Status(404)
}
