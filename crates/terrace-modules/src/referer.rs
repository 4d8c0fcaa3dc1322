//! `valid_referers`: `$invalid_referer` is `1` for a request that comes from a page of no known site.
//!
//! The field is easily forged; the module is for the many clients that do not.

use std::sync::Arc;

use terrace_conf::{Arg, Arity, ConfError, Contexts, Directive, Node};
use terrace_http::conf::table::simple;
use terrace_http::{Builder, Merge, MergeContext, Module, Request};
use terrace_http1::KnownHeader;
use terrace_regex::{Options, Regex};

/// The module.
pub struct Referer;

/// A longer host is none of those that are known.
const HOST_BYTES_MAX: usize = 256;
/// A shorter field cannot have both a scheme and a host.
const URL_BYTES_MIN: usize = "http://i".len();

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    simple("valid_referers", Contexts::SERVER.union(Contexts::LOCATION), Arity::AtLeast(1), "", "The sites whose pages may lead here: names, *.names, names.*, ~regexes, none, blocked, server_names.", set),
];

impl Module for Referer {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn variables(&self, b: &mut Builder) {
        b.vars.define("invalid_referer", |r, out| {
            if is_invalid(r) {
                out.push(b'1');
            }
            true
        });
    }
}

/// What a block configures; one without the directive has that of the enclosing one.
#[derive(Default)]
struct Conf {
    none: bool,
    blocked: bool,
    server_name: bool,
    sites: Vec<Site>,
}

impl Merge for Conf {
    fn merge(&mut self, parent: &Self, _: MergeContext) {
        if !self.is_set() {
            self.none = parent.none;
            self.blocked = parent.blocked;
            self.server_name = parent.server_name;
            self.sites.clone_from(&parent.sites);
        }
    }
}

impl Conf {
    fn is_set(&self) -> bool {
        self.none || self.blocked || self.server_name || !self.sites.is_empty()
    }
}

/// A site: a host, by name or pattern, and the beginning of the paths on it, or a regex for both.
#[derive(Clone)]
enum Site {
    Name { host: Host, path: Box<[u8]> },
    Pattern(Arc<Regex>),
}

/// A host's name, in lower case.
#[derive(Clone)]
enum Host {
    Exact(Box<[u8]>),
    /// `*.name`, and `.name`, which is the name itself too: what the host ends with, its dot included.
    Below(Box<[u8]>, bool),
    /// `name.*`: what the host begins with, its dot included.
    Under(Box<[u8]>),
}

impl Host {
    fn is(&self, host: &[u8]) -> bool {
        match self {
            Host::Exact(name) => **name == *host,
            Host::Below(end, itself) => {
                (host.len() > end.len() && host.ends_with(end)) || (*itself && *host == end[1..])
            }
            Host::Under(start) => host.len() > start.len() && host.starts_with(start),
        }
    }
}

fn set(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    for arg in &node.args {
        let conf = b.conf::<Conf>();
        match &arg.value[..] {
            b"none" => conf.none = true,
            b"blocked" => conf.blocked = true,
            b"server_names" => conf.server_name = true,
            _ => conf.sites.push(site(arg)?),
        }
    }
    Ok(())
}

fn site(arg: &Arg) -> Result<Site, ConfError> {
    if let Some(pattern) = arg.value.strip_prefix(b"~") {
        if pattern.is_empty() {
            return Err(arg.error(format!("empty regex in \"{arg}\"")));
        }
        let options = Options { caseless: true, ..Options::default() };
        let regex = Regex::new(pattern, options).map_err(|e| arg.error(e.to_string()))?;
        return Ok(Site::Pattern(Arc::new(regex)));
    }
    let at = memchr::memchr(b'/', &arg.value).unwrap_or(arg.value.len());
    let (name, path) = arg.value.split_at(at);
    let name = name.to_ascii_lowercase();
    let host = if let Some(end) = name.strip_prefix(b"*").filter(|it| it.starts_with(b".")) {
        Host::Below(end.into(), false)
    } else if name.starts_with(b".") {
        Host::Below(name.into(), true)
    } else if let Some(start) = name.strip_suffix(b"*").filter(|it| it.ends_with(b".")) {
        Host::Under(start.into())
    } else {
        Host::Exact(name.into())
    };
    let is_bad = match &host {
        Host::Exact(it) => it.is_empty() || it.contains(&b'*'),
        Host::Below(it, _) | Host::Under(it) => it.len() < 2 || it.contains(&b'*'),
    };
    if is_bad {
        return Err(arg.error(format!("invalid server name or wildcard \"{arg}\"")));
    }
    Ok(Site::Name { host, path: path.into() })
}

fn is_invalid(r: &Request) -> bool {
    let Some(conf) = r.settings::<Conf>().filter(|it| it.is_set()) else { return false };
    match r.headers_in.with(KnownHeader::Referer, |referer| is_valid(conf, r, referer)) {
        None => !conf.none,
        Some(valid) => !valid,
    }
}

fn is_valid(conf: &Conf, r: &Request, referer: &[u8]) -> bool {
    let after = |scheme: &[u8]| {
        let (start, rest) = referer.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    let url =
        if referer.len() < URL_BYTES_MIN { None } else { after(b"http://").or_else(|| after(b"https://")) };
    let Some(url) = url else { return conf.blocked };
    let end = memchr::memchr2(b'/', b':', url).unwrap_or(url.len());
    if end > HOST_BYTES_MAX {
        return false;
    }
    let host = url[..end].to_ascii_lowercase();
    let path = memchr::memchr(b'/', url).map_or(&[][..], |at| &url[at..]);
    let is_own = conf.server_name && !host.is_empty() && r.server().core.name().as_bytes() == host;
    is_own
        || conf.sites.iter().any(|site| match site {
            Site::Name { host: known, path: start } => known.is(&host) && path.starts_with(start),
            Site::Pattern(regex) => regex.is_match(url).unwrap_or(false),
        })
}
