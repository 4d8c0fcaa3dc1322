//! `try_files`: the first of several files that is there, or else a URI, a named location or a status.

use std::io::ErrorKind;
use std::rc::Rc;

use bytes::Bytes;
use terrace_base::log::Level;
use terrace_conf::{Arg, Arity, ConfError, Contexts, Directive, Node};
use terrace_http::conf::table::simple;
use terrace_http::core::location_conf::Alias;
use terrace_http::{
    Builder, Handler, LocationBuilder, Merge, MergeContext, Module, Outcome, Phase, Request, Step, Value,
};

use crate::file_test::{log_failed_stat, stat};

/// The module.
pub struct TryFiles;

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    simple("try_files", Contexts::SERVER.union(Contexts::LOCATION), Arity::AtLeast(2), "", "Serves the first file that is there, or else the last argument.", set_try_files),
];

impl Module for TryFiles {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        if let Some(files) = location.settings.of::<TryFilesConf>().0.take() {
            location.add(Phase::Precontent, files);
        }
        Ok(())
    }
}

/// A block's own `try_files`; it is not inherited, not even by an `if`.
#[derive(Default)]
struct TryFilesConf(Option<Files>);

impl Merge for TryFilesConf {
    fn merge(&mut self, _: &Self, _: MergeContext) {}
}

struct Files {
    files: Vec<Candidate>,
    otherwise: Otherwise,
}

struct Candidate {
    name: Value,
    /// It was written with a slash at its end.
    is_dir: bool,
}

enum Otherwise {
    Status(u16),
    Uri(Value),
}

fn set_try_files(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let Some((last, files)) = node.args.split_last() else { return Err(node.invalid_arity()) };
    let otherwise = match last.value.strip_prefix(b"=") {
        Some(code) => {
            let code = terrace_base::units::parse_number(code).and_then(|c| u16::try_from(c).ok());
            let code = code.filter(|c| *c <= 999);
            Otherwise::Status(code.ok_or_else(|| node.error(format!("invalid code \"{last}\"")))?)
        }
        None => Otherwise::Uri(Value::compile(b, last)?),
    };
    let files = files.iter().map(|f| candidate(b, f)).collect::<Result<_, _>>()?;
    node.set_once(&mut b.conf::<TryFilesConf>().0, Files { files, otherwise })
}

fn candidate(b: &mut Builder, arg: &Arg) -> Result<Candidate, ConfError> {
    let is_dir = arg.value.ends_with(b"/");
    let name = Arg { value: arg.value.slice(..arg.value.len() - usize::from(is_dir)), ..arg.clone() };
    Ok(Candidate { name: Value::compile(b, &name)?, is_dir })
}

impl Handler for Files {
    fn handle(&self, r: &Rc<Request>) -> Step {
        let core = &r.location().core;
        let alias = core.root.alias;
        let mut path = core.root_path(r);
        let root = path.len();
        for file in &self.files {
            path.truncate(root);
            append_name(r, &file.name, alias, &mut path);
            if !self.is_there(r, &path, file.is_dir) {
                continue;
            }
            let name = &path[root..];
            match alias {
                None => r.set_uri(Bytes::copy_from_slice(name)),
                Some(Alias::Prefix(n)) => {
                    let mut uri = r.uri().get(..n).unwrap_or_default().to_vec();
                    uri.extend_from_slice(name);
                    r.set_uri(uri);
                }
                // A directory is the alias alone, whatever the URI.
                Some(Alias::Whole) if file.is_dir => {}
                Some(Alias::Whole) => {
                    r.set_uri(Bytes::copy_from_slice(name));
                    r.aliases_uri.set(true);
                }
            }
            return Step::Ready(Outcome::Declined);
        }
        Step::Ready(self.fall_back(r, alias))
    }
}

impl Files {
    fn is_there(&self, r: &Request, path: &[u8], is_dir: bool) -> bool {
        match stat(path) {
            Ok(m) => m.is_dir() == is_dir,
            Err(e) => {
                let absent = [ErrorKind::NotFound, ErrorKind::NotADirectory, ErrorKind::InvalidFilename];
                if !absent.contains(&e.kind()) {
                    log_failed_stat(r, path, &e);
                }
                false
            }
        }
    }

    fn fall_back(&self, r: &Rc<Request>, alias: Option<Alias>) -> Outcome {
        let value = match &self.otherwise {
            Otherwise::Status(code) => return Outcome::Status(*code),
            Otherwise::Uri(value) => value,
        };
        let mut to = Vec::new();
        append_name(r, value, alias, &mut to);
        if to.first() == Some(&b'@') {
            if r.redirect_to_named(&to) {
                return Outcome::Redirected;
            }
            let name = String::from_utf8_lossy(&to);
            r.log(Level::Error, format_args!("could not find named location \"{name}\""));
            return Outcome::Status(500);
        }
        let to = Bytes::from(to);
        match memchr::memchr(b'?', &to) {
            Some(at) => r.redirect_to_uri(to.slice(..at), to.slice(at + 1..)),
            None => r.redirect_to_uri(to, Bytes::new()),
        }
        Outcome::Redirected
    }
}

/// Appends a name. Within an `alias` one that is made of variables loses the location's prefix, as in nginx.
fn append_name(r: &Request, name: &Value, alias: Option<Alias>, out: &mut Vec<u8>) {
    let start = out.len();
    name.eval(r, out);
    if let (Some(Alias::Prefix(n)), None) = (alias, name.as_literal())
        && r.uri().get(..n).is_some_and(|prefix| out[start..].starts_with(prefix))
    {
        out.drain(start..start + n);
    }
}
